"""Where the children of a supervisor come from: a fork server that is there when one is needed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from vswapd.estate import Estate
from vswapd.loop import Loop
from vswapd.memory import give_precedence_to
from vswapd.offspring import Child, ForkServer

__all__ = ["LONGEST_SECONDS", "Nursery"]

_SECONDS = 1.0
LONGEST_SECONDS = 60.0
"""How long until what failed beside a worker that serves is tried again: at first, and at most."""

_log = logging.getLogger(__name__)


class Nursery:
    """The fork server of a device."""

    def __init__(
        self,
        loop: Loop,
        estate: Estate,
        command: Sequence[str],
        *,
        is_needed: Callable[[], bool],
        fail: Callable[[str], None],
    ) -> None:
        """None is started yet.

        `is_needed` is asked whether children may be wanted; `fail` is told, in a line, what went
        wrong and is tried again.
        """
        self._loop = loop
        self._estate = estate
        self._command = command
        self._is_needed = is_needed
        self._fail = fail
        self._server: ForkServer | None = None
        self._pause = _SECONDS
        self._warned: set[str] = set()
        self.due_at = 0.0
        """Not before that is the next one started (`time.monotonic`)."""

    @property
    def is_able(self) -> bool:
        """Whether it could fork now."""
        return self._server is not None and self._server.warm

    def keep_up(self, now: float) -> None:
        """See that there is one, if it is needed."""
        if self._server is None and now >= self.due_at and self._is_needed():
            self._start(now)

    def hurry(self) -> None:
        """Nobody serves: let one that is being started go first, in whatever it does.

        To be called again and again, for it does not know, and may give that up.
        """
        if self._server is not None and not self._server.warm:
            give_precedence_to(self._server.process.pid)

    def fork(self, *, hurry: bool) -> Child:
        """A new child; it must be able to. `hurry` is whether nobody serves."""
        assert self._server is not None
        return self._server.fork(hurry=hurry)

    def drop(self) -> None:
        """Let it end, if there is one."""
        if self._server is not None:
            self._loop.ignore(self._server.link)
            self._server.close()
            self._server = None

    def _start(self, now: float) -> None:
        self.due_at = now + self._pause
        self._pause = min(2 * self._pause, LONGEST_SECONDS)
        try:
            self._server = ForkServer(self._command, self._estate.record.settings)
        except OSError as error:
            self._fail(f"cannot start: {error.strerror}")
            return
        self._loop.watch(self._server.link, self._on_message)

    def _on_message(self) -> None:
        assert self._server is not None
        received = self._server.link.receive()
        if received is None:
            self._on_end()
            return
        message, _ = received
        if message["is"] == "warm":
            self._server.warm = True
            self._pause = _SECONDS
            self._estate.is_to_be(message["settings"], message["point"])
            for warning in message["warnings"]:
                self._warn(warning)
        else:
            self._fail(str(message["why"]))

    def _on_end(self) -> None:
        self.drop()
        if self._is_needed():
            self._fail("the fork server has ended")
        else:
            self.due_at = 0.0  # the next one is started when it is needed

    def _warn(self, warning: str) -> None:
        """Once is enough: each fork server says it."""
        if warning not in self._warned:
            self._warned.add(warning)
            _log.warning("%s", warning)
