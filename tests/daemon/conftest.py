"""Files for backings, and who stands for a worker's supervisor, and for systemd."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from process_support import Doing, children
from systemd_support import Store

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store import backing_make
from vswap.store.backing_make import make_file
from vswapd.messages import Link, Message

SECONDS = 10


@pytest.fixture
def doing() -> Iterator[Doing]:
    """Makes children that do something, and then live until they are killed, here at the latest."""
    with children() as make:
        yield make


class Keeping:
    """Holds what a worker has it hold, as a supervisor does. `heard` are all other messages.

    `files` are the descriptors it holds, by the paths; `told` is what it was told, in order.
    """

    def __init__(self) -> None:
        self._link, self.end = Link.pair()
        self.files: dict[str, int] = {}
        self.heard: list[Message] = []
        self.told: list[str] = []
        self.held: str | None = None
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while (received := self._link.receive()) is not None:
            message, fds = received
            self.told.append(message["is"])
            if message["is"] == "hold":
                self._drop()
                self.held = message["path"]
                self.files[message["path"]] = fds[0]
                self._link.send("held")
            elif message["is"] == "drop":
                self._drop()
            else:
                self.heard.append(message)

    def _drop(self) -> None:
        if self.held is not None:
            os.close(self.files.pop(self.held))
        self.held = None

    def go(self) -> None:
        """End, as a supervisor that was killed."""
        if self._link.fileno() == -1:
            return
        self._link._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(SECONDS)
        self._link.close()
        self._drop()

    def hear_all(self, link: Link) -> None:
        """Wait until all is heard that was told on a worker's link, which is of no use then."""
        link._socket.shutdown(socket.SHUT_WR)
        self._thread.join(SECONDS)
        assert not self._thread.is_alive()


@pytest.fixture
def keeping() -> Iterator[Keeping]:
    """Somebody who holds backings."""
    made = Keeping()
    yield made
    made.end.close()
    made.go()


class Systemd(Store):
    """Who listens at $NOTIFY_SOCKET."""

    def hear(self) -> list[list[str]]:
        """What it was told since, as lines; it has done what was asked of it."""
        return self.receive()


@pytest.fixture
def address(tmp_path: Path) -> str:
    """What $NOTIFY_SOCKET would be."""
    return str(tmp_path / "notify")


@pytest.fixture
def systemd(address: str) -> Iterator[Systemd]:
    """Somebody who listens there."""
    made = Systemd(address)
    yield made
    made.hear()
    made.close()


@pytest.fixture
def kept_signals() -> Iterator[None]:
    """As they were: a command leaves them ignored in the end, and so would its heirs."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    for number in numbers:
        signal.signal(number, before[number])


MakeBacking = Callable[[str], str]


@pytest.fixture
def make_backing(tmp_path: Path) -> MakeBacking:
    """Makes files with room for two segments each; answers their paths."""
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_DIRECT))
        backing_make.check_path(str(probe))
    except (OSError, UserError) as error:
        pytest.skip(f"the temporary directory cannot hold a backing: {error}")
    probe.unlink()

    def make(name: str) -> str:
        path = str(tmp_path / name)
        make_file(path, 2 * SEGMENT_SIZE)
        return path

    return make
