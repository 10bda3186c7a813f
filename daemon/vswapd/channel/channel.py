"""The channel: one mounted connection, the data threads that serve it, the fetchers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

from vswap.proto import abi
from vswap.store import State, Store
from vswapd.channel.done import MARK_SIZE, Done
from vswapd.channel.fetchers import Fetchers
from vswapd.channel.latency import Latencies
from vswapd.channel.outstanding import Outstanding
from vswapd.channel.receiver import Receiver, ReceiverStatistics
from vswapd.channel.router import Forward, Router, RouterStatistics
from vswapd.channel.threads import DataThread, Turn
from vswapd.histogram import Histogram

__all__ = ["BUFFER_SIZE", "Channel", "ChannelStatistics", "receive_buffer", "signs"]

_PAGE = 4096
BUFFER_SIZE = _PAGE + abi.MAX_WRITE
"""Bytes of one receive buffer: a request's header ends, and its data begins, at a page."""
assert BUFFER_SIZE - _PAGE + abi.WRITE_PAYLOAD >= abi.READ_BUFFER_SIZE
assert _PAGE - abi.WRITE_PAYLOAD >= MARK_SIZE


def signs(state: State) -> list[int]:
    """Where in the buffers' region the requests begin, in bytes: by what changes there one sees
    that a worker lives.
    """
    size = state.shape.buffer_size
    return [index * size + _PAGE - abi.WRITE_PAYLOAD for index in range(state.shape.buffers)]


def receive_buffer(buffer: memoryview) -> memoryview:
    """The part of a state's buffer that requests are received into."""
    return buffer[_PAGE - abi.WRITE_PAYLOAD :]


@dataclass(frozen=True)
class ChannelStatistics:
    """Sums over the data threads of what `ReceiverStatistics` and `RouterStatistics` count."""

    received_at_once: int
    received_spinning: int
    received_sleeping: int
    parked: int
    forwarded: int
    refused: int
    late_replies: int
    protocol_errors: int
    internal_errors: int


class Channel:
    """Serves the connection behind `fd` with `threads` data threads."""

    def __init__(
        self,
        fd: int,
        state: State,
        store: Store,
        *,
        outstanding: Outstanding,
        spin_us: int,
        forward: Forward,
        prepare: Callable[[], None],
        on_end: Callable[[], None],
    ) -> None:
        """One thread for each receive buffer of `state`. Raises `FullError`.

        `outstanding` is told of requests that leave their buffers unanswered.
        `prepare` runs in each thread before it serves; `on_end` in one of them when the
        connection has closed.
        """
        self._outstanding = outstanding
        self._turn = turn = Turn()
        self._fetchers = fetchers = Fetchers(fd, store.fetch_lane, outstanding.answered, prepare)
        self._threads: list[DataThread] = []
        for index in range(state.shape.buffers):
            whole = state.buffer(index)
            buffer, done = receive_buffer(whole), Done(whole)
            receiver = Receiver(fd, buffer, spin_us)
            offer = partial(turn.offer, receiver.pending)
            lane = store.lane(turn.serve_without, offer, fetchers.fetch_ahead)
            router = Router(fd, buffer, lane, done, outstanding, forward, fetchers.answer)
            self._threads.append(DataThread(index, receiver, router, turn, prepare, on_end))

    def take_over(self, *, resend: bool) -> None:
        """Answer what a predecessor has left unanswered. To be called before `start`.

        What it had in its receive buffers is executed again. What it had passed on is asked for
        again, if the kernel can `resend`; else it is what was kept of it. All of that before
        anything new is received: a write must not be executed again after later ones.
        """
        kept = self._outstanding.all()  # without what comes from the buffers now
        for thread in self._threads:
            thread.router.redo(resend=resend)
            thread.receiver.forget()
        if resend:
            self._outstanding.clear()
            self._threads[0].router.ask_again()
        else:
            for request in kept:
                self._threads[0].router.serve_again(request)

    def start(self) -> None:
        """Begin to serve."""
        for thread in self._threads:
            thread.start()
        self._fetchers.start()

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for each thread, once the connection has closed."""
        for thread in self._threads:
            thread.join(timeout)
        self._fetchers.stop()
        self._fetchers.join(timeout)

    @property
    def failed(self) -> bool:
        """Whether the threads have ended although the connection has not."""
        return not self._turn.closed

    def thread_ids(self) -> list[int]:
        """The kernel's numbers of the data threads."""
        return [thread.native_id for thread in self._threads]

    def latencies(self) -> Latencies:
        """How long requests took. Threads are read one after the other."""
        routers = [thread.router.latencies() for thread in self._threads]
        fetched = Latencies(self._fetchers.latency(), Histogram(), Histogram())
        return Latencies.sum_of([*routers, fetched])

    def statistics(self) -> ChannelStatistics:
        """A snapshot. Counters of different threads are read one after the other."""
        receivers = [thread.receiver.statistics() for thread in self._threads]
        routers = [thread.router.statistics() for thread in self._threads]
        received = _sums(ReceiverStatistics, receivers)
        routed = _sums(RouterStatistics, routers)
        fetchers = self._fetchers
        sums = ChannelStatistics(*received, *routed)
        return replace(
            sums,
            late_replies=sums.late_replies + fetchers.late_replies,
            internal_errors=sums.internal_errors
            + fetchers.internal_errors
            + fetchers.failed_replies,
        )


def _sums(kind: type, statistics: list[ReceiverStatistics] | list[RouterStatistics]) -> list[int]:
    return [sum(getattr(one, field.name) for one in statistics) for field in fields(kind)]
