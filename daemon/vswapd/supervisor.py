"""The supervisor: it keeps what outlives a worker, and sees that there is always a worker.

It uses the standard library alone, does no I/O that could wait for the device it keeps, and knows
nothing of what is stored. One thread waits for messages and for deaths, and decides:

* At any time there is at most one worker and one standby.
* A worker is told to serve only when its predecessor has ended, all of its threads.
* As long as the connection is open the descriptors are kept, whatever else fails: but those of a
  device that was made here and has never been ready, on which nobody relies.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from vswap.errors import UserError
from vswapd.ending import is_ending
from vswapd.estate import Estate
from vswapd.held import Held, Record
from vswapd.loop import Loop
from vswapd.messages import Message
from vswapd.notify import Told, reason
from vswapd.nursery import LONGEST_SECONDS, Nursery
from vswapd.offspring import FORK_SERVER, Child, Death
from vswapd.patience import Patience
from vswapd.sdnotify import Keeper
from vswapd.succession import Succession
from vswapd.watchdog import Watchdog

__all__ = ["Supervisor"]

_TICK_SECONDS = 1.0

_FAULT_SECONDS = 0.1
"""Between an error that nobody foresaw, and the next one."""

_PREPARED_SECONDS = 30.0
"""A standby that is not prepared by then hangs."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Of one device."""

    def __init__(
        self, record: Record, ready: Told, keeper: Keeper, command: Sequence[str] = FORK_SERVER
    ) -> None:
        """A device that is to be made; `inherit` is for one that is there.

        `command` is the fork server's.
        """
        self.estate = Estate(record, keeper)
        self.loop = Loop()
        self._ready = ready
        self._nursery = Nursery(
            self.loop,
            self.estate,
            command,
            is_needed=lambda: not self._is_complete,
            fail=self._go_wrong,
        )
        self._succession = Succession(self.loop, self.estate)
        self._worker: Child | None = None
        self._standby: Child | None = None
        self._inherited = False  # the device was there before us
        self._gave_up = False
        self.has_rival = False
        """Whether another supervisor has all of it too, and goes on with it if we end."""
        self.held_back = False
        """Whether somebody else decides who serves: see `hold_back`."""
        self._deferred: list[tuple[Child, Message, list[int]]] = []
        self.on_prepared: Callable[[], None] = lambda: None
        """Called when a standby could serve."""
        self.on_hangup: Callable[[], None] = lambda: None
        """Called for SIGHUP."""
        self.on_tick: Callable[[float], None] = lambda _now: None
        """Called every second, with the time (`time.monotonic`)."""
        self._patience = Patience()
        self._next_at = 0.0  # not before that is another child made or told to serve
        self._tick_at = 0.0
        self._watchdog: Watchdog | None = None
        self._unmounting = False
        self._status: int | None = None

    def inherit(self, held: Held) -> None:
        """Go on with a device that is there."""
        self._inherited = True
        self.estate.hold(held)
        self._watch_over(held)

    def follow(self, pidfd: int) -> None:
        """A worker that is not ours still runs: it is killed when a standby could serve."""
        self._succession.follow(pidfd)

    @property
    def _may_end(self) -> bool:
        """Whether nothing is lost if we give up: what fails then is the start, or a takeover."""
        return not self._ready.told and (self.has_rival or not self._inherited)

    def hold_back(self) -> None:
        """Somebody else decides who serves: no standby is told to, and nothing is promised.

        What the worker wants to be held would not be what the other one was given.
        """
        self.held_back = True

    def go_on(self) -> None:
        """We decide again. A worker that is not ours must end first."""
        self.held_back = False
        self._succession.look_around()
        deferred, self._deferred = self._deferred, []
        for child, message, fds in deferred:
            if child is self._worker:
                self._hear(child, message, fds)
                continue
            # It has ended. Nothing is to be held for it; but what it let go of, it has let go of.
            if message["is"] == "drop":
                self.estate.hear(message, fds)
            for fd in fds:
                os.close(fd)

    @property
    def worker(self) -> int | None:
        """The pidfd of the worker, if there is one."""
        return None if self._worker is None else self._worker.pidfd

    def stop(self, status: int) -> None:
        """End `run`, with this status. What is mounted stays so, unless nobody serves it."""
        self._status = status

    def try_again(self) -> None:
        """Somebody wants it to be tried, however often it has failed."""
        self._patience.asked()
        self._next_at = 0.0

    # --- The loop -------------------------------------------------------------------------

    def run(self) -> int:
        """Supervise until the file system is unmounted; the exit status."""
        signals = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        self.loop.watch_signals(signals, self._on_signals)
        ended = threading.Event()
        resident = partial(self.estate.keep_resident, ended)
        threading.Thread(target=resident, name="vswap-resident", daemon=True).start()
        try:
            while self._status is None:
                self._survive(self._keep_up)
                self._survive(lambda: self.loop.wait(self._due()))
            return self._status
        finally:
            ended.set()
            self._leave()
            self.loop.close()

    def _survive(self, step: Callable[[], None]) -> None:
        """Do something, and go on if it fails: unless nothing is lost if we do not."""
        try:
            step()
        except Exception:
            if self._may_end:
                raise
            _log.exception("a fault in the supervisor, which goes on")
            time.sleep(_FAULT_SECONDS)

    def _due(self) -> float:
        """When something is to be done next."""
        now = time.monotonic()
        times = (self._nursery.due_at, self._next_at, self._tick_at)
        return min((at for at in times if at > now), default=now + _TICK_SECONDS)

    def _keep_up(self) -> None:
        """Do what has become due, or possible."""
        now = time.monotonic()
        if not self.held_back:
            self._succession.find()
        self._hurry()
        self._nursery.keep_up(now)
        if not self._patience.given_up and now >= self._next_at:
            if self._is_needed():
                self._fork()
            if self._worker is None and not self.held_back:
                self._promote()
        if now >= self._tick_at:
            self._tick_at = now + _TICK_SECONDS
            self._tick(now)

    def _tick(self, now: float) -> None:
        worker, standby = self._worker, self._standby
        self.on_tick(now)
        if worker is None and self.estate.is_closed:
            self.stop(0)
        elif worker is not None and self._watchdog is not None and self._watchdog.look(now):
            _log.error("the worker answers nothing: it is replaced")
            worker.kill()
            self._watchdog.forgive()
        if standby is not None and not standby.prepared and standby.age() > _PREPARED_SECONDS:
            _log.error("a standby is not prepared in time: another one is made")
            self._give_up(standby)
        if self._patience.given_up and worker is not None and now > self._next_at:
            self._patience.asked()  # it was only standbys that failed
            self._next_at = now + LONGEST_SECONDS

    def _give_up(self, standby: Child) -> None:
        if standby.pidfd is not None:
            standby.kill()  # and its end is told
            return
        self.loop.ignore(standby.link)
        standby.link.close()  # it ends, if it is born yet
        self._standby = None
        self._nursery.drop()

    def _on_signals(self, numbers: bytes) -> None:
        if signal.SIGHUP in numbers:
            self.on_hangup()
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            if self._may_end:
                self._go_wrong("interrupted")
            elif not self._unmounting:
                self._unmounting = True
                threading.Thread(target=self._unmount, name="vswap-unmount", daemon=True).start()

    def _unmount(self) -> None:
        """In a thread: it can come to wait for a worker, which can come to wait for us."""
        self.estate.unmount()
        self._unmounting = False
        self.loop.wake()

    # --- Children -------------------------------------------------------------------------

    @property
    def _is_complete(self) -> bool:
        """Whether there are the spares that there are to be, and nothing that could fork more."""
        if self._standby is None and self._worker is None:
            return False
        spares = self.estate.record.values.get("spares")
        return spares == 0 or (spares == 1 and self._standby is not None)

    def _is_needed(self) -> bool:
        """Whether another standby is. Not while a worker begins: it has something better to do."""
        busy = self._worker is not None and self._worker.serving_since is None
        is_able = self._nursery.is_able
        return self._standby is None and not busy and is_able and not self._is_complete

    def _fork(self) -> None:
        self._standby = child = self._nursery.fork(hurry=self._nobody_serves)
        self.loop.watch(child.link, lambda: self._on_child(child))

    @property
    def _nobody_serves(self) -> bool:
        """Whether requests can come, and nobody answers them: neither ours nor another's."""
        others = self.held_back or self._succession.waits
        return self._worker is None and self.estate.is_open and not others

    def _hurry(self) -> None:
        """Who is prepared at leisure may come to wait for memory that waits for who serves."""
        if not self._nobody_serves:
            return
        standby = self._standby
        if standby is None:
            self._nursery.hurry()
        elif not standby.prepared:
            standby.hurry()

    def _promote(self) -> None:
        """Let the standby serve, if there is one."""
        child, held = self._standby, self.estate.held
        if child is None or not child.prepared or held is None or held.connection is None:
            return
        if not self._succession.is_over():
            return
        self._standby, self._worker, child.is_worker = None, child, True
        fds = [held.connection] if held.backing is None else [held.connection, held.backing]
        record = held.record
        child.let_first()  # it may still be warming up
        child.link.send(
            "serve",
            fds,
            init=record.init,
            reply=record.reply,
            backing=record.backing,
            restarts=record.restarts,
            supervisor=os.getpid(),
            ended=self._succession.ended,
        )

    def _on_child(self, child: Child) -> None:
        received = child.link.receive()
        if received is not None:
            self._hear(child, *received)
            return
        self.loop.ignore(child.link)
        if child.pidfd is None:  # it was never born
            self._on_death(child)

    def _hear(self, child: Child, message: Message, fds: list[int]) -> None:
        word = message["is"]
        if word == "hello":
            self._greet(child, message["pid"])
        elif word == "prepared":
            self._on_prepared(child, message, fds)
        elif word == "failed":
            child.why = str(message["why"])
        elif word == "serving":
            self._on_serving(child, message["threads"])
        elif word == "closed":
            self.estate.detach()
        elif child is self._worker and self.held_back:
            self._deferred.append((child, message, fds))
        elif child is self._worker and self.estate.hear(message, fds):
            child.link.send("held")

    def _greet(self, child: Child, pid: int) -> None:
        try:
            child.is_born(pid)
        except ProcessLookupError:
            self._on_death(child)
            return
        assert child.pidfd is not None
        self.loop.watch(child.pidfd, lambda: self._on_death(child))
        held = self.estate.held
        history = [] if held is None or held.history is None else [held.history]
        state = [] if held is None else held.state
        child.link.send("prepare", [*state, *history], history=bool(history))

    def _on_prepared(self, child: Child, message: Message, fds: list[int]) -> None:
        child.prepared = True
        if self.estate.held is None:
            try:
                self.estate.make(fds, message)
            except UserError as error:
                self._go_wrong(reason(error))
                return
            assert self.estate.held is not None
            self._watch_over(self.estate.held)
        self.on_prepared()

    def _watch_over(self, held: Held) -> None:
        seconds = float(held.record.values.get("watchdog", 0))
        self._watchdog = Watchdog(seconds, held.signs, held.has_waiting)

    def _on_serving(self, child: Child, threads: list[int]) -> None:
        child.serving_since = time.monotonic()
        child.open_threads(threads)
        for fd in child.threads:
            self.loop.watch(fd, lambda: self._on_thread_end(child))
        main = f"MAINPID={os.getpid()}"
        if self.has_rival:  # it ends when it hears of us, and must not be the main process then
            self.estate.keeper.tell(main)
        if not self._ready.told:
            self._ready.tell("ready")
            self.has_rival = False  # it has heard that, and ends
            _log.info("serving %s/swap", self.estate.record.point)
        self.estate.keeper.tell("READY=1", main)

    # --- Deaths ---------------------------------------------------------------------------

    def _on_thread_end(self, child: Child) -> None:
        """A thread of the worker has ended: all of it, if so do the others.

        Then the next one need not wait until the memory of this one has been unmapped.
        """
        self._ignore_threads(child)
        if child is not self._worker or self._patience.delay() or self.estate.is_closed:
            return
        if is_ending(child.pid):
            self._lose(child)

    def _ignore_threads(self, child: Child) -> None:
        for fd in child.threads:
            self.loop.ignore(fd)
        child.close_threads()

    def _lose(self, worker: Child) -> None:
        """There is no worker any more."""
        for received in worker.last_words():
            self._hear(worker, *received)
        self._worker, self._succession.ended = None, worker.pid
        if self._watchdog is not None:
            self._watchdog.forgive()
        self.estate.note(restarts=self.estate.record.restarts + 1)

    def _on_death(self, child: Child) -> None:
        if child is self._worker:
            if self.estate.is_closed:
                self.stop(0 if self._reap(child).status == 0 else 1)
                return
            self._lose(child)
        death = self._reap(child)
        if child is self._standby:
            self._standby = None
        if self._may_end and not (self._inherited and death.killed):
            self._go_wrong(child.why or "the worker stopped before it was ready")
            if self._gave_up:
                return
        self._patience.died(child.served(), killed=death.killed)
        self._next_at = time.monotonic() + self._patience.delay()
        why = child.why or ("killed" if death.killed else f"status {death.status}")
        _log.warning("a %s has ended (%s)", "worker" if child.is_worker else "standby", why)
        if self._patience.given_up:
            _log.error(
                "workers fail again and again: none is started any more, requests wait, and "
                "nothing is lost; `vswap restart` tries again, also with another version"
            )

    def _reap(self, child: Child) -> Death:
        """It has ended: leave nothing of it."""
        for received in child.last_words():
            self._hear(child, *received)
        self.loop.ignore(child.link)
        self._ignore_threads(child)
        if child.pidfd is not None:
            self.loop.ignore(child.pidfd)
        return child.reap()

    def _go_wrong(self, why: str) -> None:
        """What failed is the start, or something that is tried again."""
        self._gave_up = self._may_end and self._ready.tell(f"error {why}")
        if not self._gave_up:
            _log.error("%s; it is tried again", why)
            return
        _log.error("%s", why)
        self._status = 2

    def _leave(self) -> None:
        """Leave no process behind, and no dead mount; and touch no other's.

        If there is something to lose, what is worth keeping goes on without us.
        """
        ours = not self.held_back  # else somebody else has all of it now
        over = self.estate.is_closed or self._gave_up or self._may_end
        for child in (self._standby, self._worker if ours and over else None):
            if child is not None:
                child.kill()
        self._nursery.drop()
        if ours and over and not self.has_rival:
            self.estate.forget()
