"""The data threads: take turns at receiving, serve side by side.

One thread at a time, the one whose *turn* it is, waits for requests. Short ones it serves
itself without giving up the turn: they are mostly Python, which runs in one thread at a
time anyway, and waking another thread costs more than a page takes. Before a long one,
whose time goes to compression and copying outside the GIL, it passes the turn on, and the
next request is received meanwhile.

So only one thread ever spins, and a request wakes no more than one.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from vswapd.channel.receiver import ConnectionClosedError, Receiver
from vswapd.channel.router import Router

__all__ = ["DataThread", "Turn"]

_log = logging.getLogger(__name__)


class Turn:
    """Whose turn it is to receive. Shared by the data threads of one connection."""

    def __init__(self) -> None:
        """Nobody's."""
        self.lock = threading.Lock()
        self.closed = False
        self.serving = 0
        """Threads that serve a long request at the moment; changed by who has the turn."""


class DataThread:
    """One data thread."""

    def __init__(
        self,
        index: int,
        receiver: Receiver,
        router: Router,
        turn: Turn,
        prepare: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        """`prepare` runs first in the thread; `on_end` last, from the first thread to end."""
        self.receiver = receiver
        self.router = router
        self._turn = turn
        self._prepare = prepare
        self._on_end = on_end
        self._thread = threading.Thread(target=self._run, name=f"vswap-data-{index}", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    @property
    def native_id(self) -> int:
        """The kernel's number of the thread; 0 before it runs."""
        return self._thread.native_id or 0

    def join(self, timeout: float) -> None:
        """Wait for the thread's end after the connection has closed."""
        self._thread.join(timeout)

    def _run(self) -> None:
        self._prepare()
        turn = self._turn
        turn.lock.acquire()
        try:
            self._serve_until_closed()
        except ConnectionClosedError:
            pass
        except Exception:
            _log.exception("a data thread has failed")
        finally:
            # Only the thread whose turn it is can get here.
            first = not turn.closed
            turn.closed = True
            turn.lock.release()
            if first:
                self._on_end()

    def _serve_until_closed(self) -> None:
        """Called and left with the turn."""
        receive, router, turn = self.receiver.receive, self.router, self._turn
        while not turn.closed:
            length = receive(not turn.serving)
            request = router.decode(length)
            if request is None:
                continue
            if router.is_long(request) and self.receiver.pending():
                turn.serving += 1
                turn.lock.release()
                try:
                    router.serve(request, length)
                finally:
                    turn.lock.acquire()
                    turn.serving -= 1
            else:
                router.serve(request, length)
