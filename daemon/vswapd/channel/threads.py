"""The data threads: take turns at receiving, serve side by side.

One thread at a time, the one whose *turn* it is, waits for requests. Short ones it serves
itself without giving up the turn: they are mostly Python, which runs in one thread at a
time anyway, and waking another thread costs more than a page takes. Before a long one, or
one of some length when another already waits, it passes the turn on, and the next request
is received meanwhile. So it does when a request comes while a write of many pages is being
compressed, and when a write turns out to need room made by cleaning. It waits for the turn
again only when it has answered: the kernel may be waiting for that answer before it sends
anything else.

So only one thread ever spins, and a request wakes no more than one. Before it waits for the
next, the thread that has the turn prepares for what may be asked next, until something is.
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
        self._lock = threading.Lock()
        self._owner = 0  # the thread that has it, by its identifier
        self.closed = False
        self.serving = 0
        """Threads that serve without having the turn at the moment (not: wait to get it back)."""
        self._threads = 0
        self._count_lock = threading.Lock()

    def take(self) -> None:
        """Wait for the turn. Nothing to do for the thread that has it."""
        if self._owner != (me := threading.get_ident()):
            self._lock.acquire()
            self._owner = me

    def give_up(self) -> None:
        """Let others receive. Nothing to do for a thread that does not have the turn."""
        if self._owner == threading.get_ident():
            self._owner = 0
            self._lock.release()

    def serve_without(self) -> None:
        """Let others receive while this thread goes on serving, until it calls `take_back`."""
        if self._owner == threading.get_ident():
            with self._count_lock:
                self.serving += 1
            self.give_up()

    def offer(self, pending: Callable[[], bool]) -> None:
        """Let others receive, as `serve_without` does, if a request is `pending`."""
        if self._owner == threading.get_ident() and pending():
            self.serve_without()

    def take_back(self) -> None:
        """What was served is answered: wait for the turn, if it was given up meanwhile."""
        if self._owner != threading.get_ident():
            with self._count_lock:
                self.serving -= 1
            self.take()

    def join(self) -> None:
        """One more thread takes turns."""
        with self._count_lock:
            self._threads += 1

    def leave(self) -> bool:
        """One thread less, which need not have the turn; whether it was the last."""
        with self._count_lock:
            self._threads -= 1
            return not self._threads


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
        """`prepare` runs first in the thread; `on_end` last, in the last thread to end."""
        self.receiver = receiver
        self.router = router
        self._turn = turn
        turn.join()
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
        try:
            self._prepare()
            self._turn.take()
            self._serve_until_closed()
        except Exception:
            # The others go on without this one.
            _log.exception("a data thread has failed")
        finally:
            self._turn.give_up()
            self._end()

    def _end(self) -> None:
        if self._turn.leave():
            self._on_end()

    def _serve_until_closed(self) -> None:
        """Called and left with the turn."""
        receiver, router, turn = self.receiver, self.router, self._turn
        receive, forget, pending = receiver.receive, receiver.forget, receiver.pending
        prepare = router.prepare
        while not turn.closed:
            try:
                length = receive(not turn.serving)
            except ConnectionClosedError:
                turn.closed = True
                break
            request = router.decode(length)
            if request is None:
                forget()
            else:
                if router.wants_company(request, pending):
                    turn.serve_without()
                router.serve(request, length)  # which may give up the turn, too
                forget()
                turn.take_back()
                while prepare() and not pending():
                    pass
