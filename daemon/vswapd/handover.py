"""One supervisor in the place of another: `vswap restart`, SIGHUP.

The new one is a program started anew, so of the code that is installed now. It is handed all
descriptors over a Unix socket, and makes a standby, which looks whether it can read the state.
Until that stands ready nothing has changed, and if it fails nothing does. Then the new one is told
to take the device: it kills the old worker and lets its own serve, as after any death. The
old one keeps everything until it hears that this has come about; should it not, it goes on.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from vswapd.held import Held, Record
from vswapd.messages import Link
from vswapd.notify import Told
from vswapd.supervisor import Supervisor

__all__ = ["SUPERVISOR", "Heir", "Inheritance"]

SUPERVISOR = (sys.executable, "-m", "vswapd.supervise")

_SECONDS = 60.0
"""For a new supervisor to serve."""

_log = logging.getLogger(__name__)


class Heir:
    """The new supervisor, as the old one sees it."""

    def __init__(
        self,
        supervisor: Supervisor,
        record_fd: int | None,
        command: Sequence[str],
        tell: Callable[[str], None],
    ) -> None:
        """Start it. `record_fd` is that of the record that systemd keeps.

        `tell` is told ``ok`` or ``error REASON`` at the end. Raises `OSError`.
        """
        held = supervisor.estate.held
        assert held is not None
        self._supervisor = supervisor
        self._tell = tell
        self._link, theirs = Link.pair()
        self.ended = False
        self._deadline = time.monotonic() + _SECONDS
        with theirs:
            self.process = subprocess.Popen(
                [*command, "--inherit-fd", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
            )
        bundle = held.bundle()
        if record_fd is not None:
            bundle.append(("record", record_fd))
        names, fds = [name for name, _ in bundle], [fd for _, fd in bundle]
        self._link.send("inherit", fds, names=names, record=held.record.to_json())
        supervisor.loop.watch(self._link, self._on_message)

    def look(self, now: float) -> None:
        """To be called from time to time: one that hangs must not keep the device for ever."""
        if not self.ended and now > self._deadline:
            self.process.kill()

    def _on_message(self) -> None:
        received = self._link.receive()
        word = "gone" if received is None else received[0]["is"]
        if word == "able":
            self._let_take()
        elif word == "serving":
            self._end("ok")
            self._supervisor.stop(0)
        else:
            ended = "the new supervisor has ended"
            why = ended if received is None else received[0].get("why", f"it says {word!r}")
            self._supervisor.go_on()
            self._end(f"error {why}")

    def _let_take(self) -> None:
        held, worker = self._supervisor.estate.held, self._supervisor.worker
        assert held is not None
        self._deadline = time.monotonic() + _SECONDS
        self._supervisor.hold_back()
        fds = [fd for fd in (held.backing, worker) if fd is not None]
        self._link.send("take", fds, record=held.record.to_json(), running=worker is not None)

    def _end(self, outcome: str) -> None:
        self.ended = True
        self._supervisor.loop.ignore(self._link)
        self._link.close()
        self._tell(outcome)


class Inheritance(Told):
    """The old supervisor, as the new one sees it; and who is told how the start goes."""

    def __init__(self, link: Link) -> None:
        """`link` is to the old one. Raises `ValueError` if what it hands over is no device."""
        super().__init__()
        self._link = link
        received = link.receive()
        if received is None:
            raise ValueError("nothing was handed over")
        message, fds = received
        record = Record.from_json(message["record"])
        bundle = dict(zip(message["names"], fds, strict=True))
        self.record_fd = bundle.pop("record", None)
        self.held = Held.of(record, list(bundle.items()))

    def begin(self, supervisor: Supervisor) -> None:
        """Let the supervisor inherit, and wait for the old one's word."""
        self._supervisor = supervisor
        supervisor.inherit(self.held)
        supervisor.has_rival = True
        supervisor.hold_back()
        supervisor.on_prepared = self._on_prepared
        supervisor.loop.watch(self._link, self._on_message)

    def _on_prepared(self) -> None:
        if self._supervisor.held_back:
            self._link.send("able")

    def _on_message(self) -> None:
        received = self._link.receive()
        supervisor = self._supervisor
        if received is None:
            supervisor.loop.ignore(self._link)
            supervisor.has_rival = False
            if supervisor.held_back:  # it has died: somebody must go on with the device
                self.held.note(restarts=self.held.record.restarts + 1)
                supervisor.go_on()
            return
        message, fds = received
        record = Record.from_json(message["record"])
        running = fds.pop() if message["running"] else None
        self.held.drop_backing()
        if fds:
            self.held.backing = fds.pop()
        self.held.record = record
        self.held.note(restarts=record.restarts + 1)
        if running is not None:
            supervisor.follow(running)
        supervisor.go_on()

    def tell(self, line: str) -> bool:
        """Pass it on to the old one, the first time. False if that one could not go on any more."""
        if self.told:
            return True
        if line == "ready":
            self.told = True
            self._link.send("serving")
        else:
            self.told = self._link.send("unable", why=line.removeprefix("error "))
            self._supervisor.has_rival = self.told
        return self.told
