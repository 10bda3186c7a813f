"""The fetchers: threads that answer reads which have to wait for the disk.

A data thread that finds pages on disk hands the read over and goes on receiving, so that what is
in memory is not kept waiting by what is not. The fetchers read, decrypt, decompress and reply.
While little waits they also fetch what will probably be asked for next.
"""

from __future__ import annotations

import errno
import logging
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import perf_counter_ns

from vswap.errors import RequestError
from vswap.proto import replies
from vswap.store import FetchLane, Gap, Parked
from vswapd.channel.latency import Latency
from vswapd.channel.replier import Replier
from vswapd.histogram import Histogram, sum_of

__all__ = ["FETCHERS", "Fetchers"]

FETCHERS = 4
"""How many read at a time. A disk wants several; the processor's part is Python, in turns."""

_MOST_AHEAD = 2 * FETCHERS
"""Waiting work with which nothing more is fetched ahead."""

_log = logging.getLogger(__name__)


class Fetchers:
    """Threads, each with a lane of its own, and the work that waits for them."""

    def __init__(
        self,
        fd: int,
        lane: Callable[[], FetchLane],
        answered: Callable[[int], None],
        prepare: Callable[[], None],
    ) -> None:
        """`lane` makes one; `prepare` runs first in each thread.

        `answered` is told which reads have been, by their `unique`s.
        """
        self._answered = answered
        self._work: SimpleQueue[tuple[int, Parked, int] | Gap | None] = SimpleQueue()
        self._prepare = prepare
        self._repliers = [Replier(fd) for _ in range(FETCHERS)]
        self._threads = [
            threading.Thread(
                target=self._run, args=(lane(), index), name=f"vswap-fetch-{index}", daemon=True
            )
            for index in range(FETCHERS)
        ]
        self._internal_errors = [0] * FETCHERS  # each thread counts its own
        self._latency = [Latency() for _ in range(FETCHERS)]

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End when what waits is done. May be called before `start`, and from any thread."""
        for _ in self._threads:
            self._work.put(None)

    def join(self, timeout: float) -> None:
        """Wait up to `timeout` seconds for each thread."""
        for thread in self._threads:
            thread.join(timeout)

    def answer(self, unique: int, read: Parked, received_ns: int | None = None) -> None:
        """See that the read called `unique` is answered. It was received then, or just now."""
        self._work.put((unique, read, received_ns or perf_counter_ns()))

    def fetch_ahead(self, gap: Gap) -> None:
        """Have a unit ready, if little else waits."""
        if self._work.qsize() < _MOST_AHEAD:
            self._work.put(gap)

    @property
    def late_replies(self) -> int:
        """Replies to requests that were no more."""
        return sum(replier.late for replier in self._repliers)

    @property
    def failed_replies(self) -> int:
        """Replies that the kernel refused."""
        return sum(replier.failed for replier in self._repliers)

    def latency(self) -> Histogram:
        """How long the reads took that were answered here, with all their waiting."""
        return sum_of(latency.histogram() for latency in self._latency)

    @property
    def internal_errors(self) -> int:
        """Requests that failed, and units that could not be had ahead, for a fault of ours."""
        return sum(self._internal_errors)

    def _run(self, lane: FetchLane, index: int) -> None:
        try:
            self._prepare()
        except Exception:
            _log.exception("a fetcher is not prepared for short memory")  # and works all the same
        while (work := self._work.get()) is not None:
            try:
                if isinstance(work, Gap):
                    lane.fetch_ahead(work)
                else:
                    self._finish(lane, index, *work)
            except Exception:
                self._internal_errors[index] += 1
                _log.exception("a page could not be fetched")

    def _finish(
        self, lane: FetchLane, index: int, unique: int, read: Parked, received_ns: int
    ) -> None:
        try:
            self._reply(lane, self._repliers[index], unique, read)
        finally:
            self._answered(unique)
            self._latency[index].note(received_ns)

    @staticmethod
    def _reply(lane: FetchLane, replier: Replier, unique: int, read: Parked) -> None:
        try:
            buffers = lane.finish(read)
        except RequestError as error:
            replier.send(replies.error(unique, error.errno))
        except BaseException:
            replier.send(replies.error(unique, errno.EIO))
            raise
        else:
            replier.send(replies.data_header(unique, sum(map(len, buffers))), *buffers)
