"""The supervisor: it keeps what outlives a worker, and sees that there is always a worker.

It uses the standard library alone, does no I/O that could wait for the device it keeps, and knows
nothing of what is stored. One thread waits for messages and for deaths, and decides:

* At any time there is at most one worker and one standby.
* A worker is told to serve only when its predecessor has ended, all of its threads.
* As long as the connection is open the descriptors are kept, whatever else fails.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from vswap.errors import UserError
from vswapd import fusemount, mounts
from vswapd.held import Held, Record
from vswapd.messages import Message
from vswapd.notify import Told, reason
from vswapd.offspring import FORK_SERVER, Child, ForkServer, Predecessor
from vswapd.patience import Patience
from vswapd.sdnotify import Keeper
from vswapd.watchdog import Watchdog

if TYPE_CHECKING:
    from _typeshed import FileDescriptorLike

__all__ = ["Supervisor"]

_TICK_SECONDS = 1.0
_AGAIN_SECONDS = 1.0
"""How long until what failed beside the data path is tried again."""

_log = logging.getLogger(__name__)


class Supervisor:
    """Of one device."""

    def __init__(
        self, record: Record, ready: Told, keeper: Keeper, command: Sequence[str] = FORK_SERVER
    ) -> None:
        """A device that is to be made; `inherit` is for one that is there.

        `command` is the fork server's.
        """
        self.record = record
        self.held: Held | None = None
        self._ready = ready
        self._keeper = keeper
        self._command = command
        self._selector = selectors.DefaultSelector()
        self._signals, self._signalled = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._server: ForkServer | None = None
        self._server_at = 0.0  # not before that is the next one started
        self._worker: Child | None = None
        self._standby: Child | None = None
        self._before: Predecessor | None = None  # a worker that must end first
        self.held_back = False
        """Whether no standby may be told to serve: somebody else decides on that."""
        self.on_prepared: Callable[[], None] = lambda: None
        """Called when a standby could serve."""
        self.on_hangup: Callable[[], None] = lambda: None
        """Called for SIGHUP."""
        self._patience = Patience()
        self._next_at = 0.0  # not before that is another child made or told to serve
        self._tick_at = 0.0
        self._watchdog: Watchdog | None = None
        self._unmounting = False
        self._status: int | None = None

    def inherit(self, held: Held) -> None:
        """Go on with a device that is there."""
        self._hold(held)

    def follow(self, pidfd: int) -> None:
        """A worker that is not ours still runs: it is killed when a standby could serve."""
        self._before = Predecessor(pidfd)
        self.watch(pidfd, self._on_end_before)

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
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda _number, _frame: None)
        signal.set_wakeup_fd(self._signalled, warn_on_full_buffer=False)
        self.watch(self._signals, self._on_signal)
        try:
            self._start_server()
            while self._status is None:
                # One at a time: what is done for it may close the others.
                for key, _ in self._selector.select(self._seconds_left())[:1]:
                    key.data()
                self._keep_up()
            return self._status
        finally:
            self._leave()

    def watch(self, fd: FileDescriptorLike, heard: Callable[[], None]) -> None:
        """Call `heard` whenever there is something to read."""
        self._selector.register(fd, selectors.EVENT_READ, heard)

    def ignore(self, fd: FileDescriptorLike) -> None:
        """Do so no longer."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def _seconds_left(self) -> float:
        now = time.monotonic()
        due = [at for at in (self._server_at, self._next_at, self._tick_at) if at > now]
        return min(due, default=now + _TICK_SECONDS) - now

    def _keep_up(self) -> None:
        """Do what has become due, or possible."""
        now = time.monotonic()
        if self._server is None and now >= self._server_at:
            self._start_server()
        if not self._patience.given_up and now >= self._next_at:
            if self._is_needed():
                self._fork()
            if self._worker is None and not self.held_back:
                self._promote()
        if now >= self._tick_at:
            self._tick_at = now + _TICK_SECONDS
            self._tick(now)

    def _tick(self, now: float) -> None:
        if self.held is None:
            return
        self.held.keep_resident()
        if self.held.connection is not None and self.held.is_closed() and self._worker is None:
            self.stop(0)
        elif self._worker is not None and self._watchdog is not None and self._watchdog.look(now):
            _log.error("the worker answers nothing: it is replaced")
            self._worker.kill()
            self._watchdog.forgive()

    # --- Children -------------------------------------------------------------------------

    def _start_server(self) -> None:
        self._server_at = time.monotonic() + _AGAIN_SECONDS
        try:
            self._server = ForkServer(self._command, self.record.settings)
        except OSError as error:
            self._go_wrong(f"cannot start: {error.strerror}")
            return
        self.watch(self._server.link, self._on_server)

    def _on_server(self) -> None:
        assert self._server is not None
        received = self._server.link.receive()
        if received is None:
            self.ignore(self._server.link)
            self._server.close()
            self._server = None
            self._go_wrong("the fork server has ended")
            return
        message, _ = received
        if message["is"] == "warm":
            self._server.warm = True
            if self.held is None:  # as checked
                self.record = Record(message["settings"], message["point"])
            for warning in message["warnings"]:
                _log.warning("%s", warning)
        else:
            self._go_wrong(str(message["why"]))

    def _is_needed(self) -> bool:
        """Whether another standby is. Not while a worker begins: it has something better to do."""
        busy = self._worker is not None and self._worker.serving_since is None
        return self._standby is None and not busy and self._server is not None and self._server.warm

    def _fork(self) -> None:
        assert self._server is not None
        self._standby = child = self._server.fork()
        self.watch(child.link, lambda: self._on_child(child))

    def _promote(self) -> None:
        """Let the standby serve, if there is one."""
        child, held = self._standby, self.held
        if child is None or not child.prepared or held is None or held.connection is None:
            return
        if self._before is not None:
            self._before.kill()  # and then, when it has ended
            return
        self._standby, self._worker = None, child
        fds = [held.connection] if held.backing is None else [held.connection, held.backing]
        record = held.record
        child.link.send(
            "serve",
            fds,
            init=record.init,
            reply=record.reply,
            backing=record.backing,
            restarts=record.restarts,
            supervisor=os.getpid(),
        )

    def _on_child(self, child: Child) -> None:
        received = child.link.receive()
        if received is None:
            self.ignore(child.link)
            if child.pidfd is None:  # it was never born
                self._on_death(child)
            return
        self._hear(child, *received)

    def _hear(self, child: Child, message: Message, fds: list[int]) -> None:
        held = self.held
        word = message["is"]
        if word == "hello":
            self._greet(child, message["pid"])
        elif word == "prepared":
            child.prepared = True
            if held is None:
                self._make(fds, message)
            self.on_prepared()
        elif word == "failed":
            child.why = str(message["why"])
        elif word == "serving":
            self._on_serving(child)
        elif word == "closed":
            self._detach()
        elif held is not None and child is self._worker:
            if word == "agreed":
                held.note(init=message["init"], reply=message["reply"])
            elif word == "hold":
                held.hold_backing(fds[0], message["path"])
                self._keeper.store("backing", fds[0])
                child.link.send("held")
            elif word == "drop":
                held.drop_backing()
                self._keeper.remove("backing")
            self._keeper.record(held.record)

    def _greet(self, child: Child, pid: int) -> None:
        try:
            child.is_born(pid)
        except ProcessLookupError:
            self._on_death(child)
            return
        assert child.pidfd is not None
        self.watch(child.pidfd, lambda: self._on_death(child))
        child.link.send("prepare", None if self.held is None else self.held.state)

    def _on_serving(self, child: Child) -> None:
        child.serving_since = time.monotonic()
        if not self._ready.told:
            self._ready.tell("ready")
            _log.info("serving %s/swap", self.record.point)
        self._keeper.tell("READY=1", f"MAINPID={os.getpid()}")

    # --- Deaths ---------------------------------------------------------------------------

    def _on_death(self, child: Child) -> None:
        self.ignore(child.link)
        if child.pidfd is not None:
            self.ignore(child.pidfd)
        killed, status = child.reap()
        was_worker = child is self._worker
        if child is self._standby:
            self._standby = None
        elif child is self._worker:
            self._worker = None
            if self._watchdog is not None:
                self._watchdog.forgive()
            if self.held is not None and self.held.is_closed():
                self.stop(0 if status == 0 else 1)
                return
        if not self._ready.told:
            self._go_wrong(child.why or "the worker stopped before it was ready")
            return
        self._patience.died(child.served(), killed=killed)
        self._next_at = time.monotonic() + self._patience.delay()
        if was_worker and self.held is not None:
            self.held.note(restarts=self.held.record.restarts + 1)
            self._keeper.record(self.held.record)
        why = child.why or ("killed" if killed else f"status {status}")
        _log.warning("a worker has ended (%s); another one goes on", why)
        if self._patience.given_up:
            _log.error(
                "workers fail again and again: none is started any more, requests wait, and "
                "nothing is lost; `vswap restart` tries again, also with another version"
            )

    def _on_end_before(self) -> None:
        """The worker of a supervisor before us has ended."""
        assert self._before is not None
        self.ignore(self._before.pidfd)
        self._before.close()
        self._before = None

    # --- Beginning and end ----------------------------------------------------------------

    def _make(self, fds: list[int], message: Message) -> None:
        """The first worker has made a state: mount, and hold both."""
        signs = tuple(message["signs"])
        held = Held(self.record, fds)
        held.note(region=message["region"], signs=signs)
        try:
            point = mounts.resolve(self.record.point)
            held.connection = fusemount.open_and_mount(point, self._name, self._as_user)
        except UserError as error:
            self._go_wrong(reason(error))
            return
        except OSError as error:
            self._go_wrong(f"cannot mount on {self.record.point}: {error.strerror}")
            return
        held.note(point=point, mounted=mounts.top_mount(point))
        self._hold(held)

    def _hold(self, held: Held) -> None:
        self.held = held
        for name, fd in held.bundle():
            self._keeper.store(name, fd)
        self._keeper.record(held.record)
        seconds = float(held.record.values.get("watchdog", 0))
        self._watchdog = Watchdog(seconds, held.signs, held.has_waiting)

    @property
    def _name(self) -> str:
        return str(self.record.values["name"])

    @property
    def _as_user(self) -> bool:
        return bool(self.record.values.get("allow_fusermount"))

    def _go_wrong(self, why: str) -> None:
        """What failed is the start, or something that is tried again."""
        if self._ready.told:
            _log.error("%s; it is tried again", why)
            return
        self._ready.tell(f"error {why}")
        _log.error("%s", why)
        self._status = 2

    def _on_signal(self) -> None:
        numbers = os.read(self._signals, 64)
        if signal.SIGHUP in numbers:
            self.on_hangup()
        if signal.SIGTERM in numbers or signal.SIGINT in numbers:
            if not self._ready.told:
                self._go_wrong("interrupted")
            elif not self._unmounting:
                self._unmounting = True
                threading.Thread(target=self._unmount, name="vswap-unmount", daemon=True).start()

    def _unmount(self) -> None:
        """End everything by unmounting, or say why not and go on.

        In a thread: it can come to wait for a worker, which can come to wait for us.
        """
        assert self.held is not None
        try:
            fusemount.unmount(self.held.record.point, self._as_user)
        except OSError as error:
            _log.warning(
                "%s goes on being served (%s): `vswap down %s` ends it safely",
                self.held.record.point,
                error.strerror,
                self._name,
            )
        finally:
            self._unmounting = False
            os.write(self._signalled, b"\0")  # look again

    def _detach(self) -> None:
        """The connection has closed: no dead mount is left, and none that is another's touched.

        At once: later the place may be a successor's.
        """
        held = self.held
        if held is not None and held.record.mounted is not None:
            point, mounted = held.record.point, held.record.mounted
            held.note(mounted=None)
            if mounts.top_mount(point) == mounted:
                with suppress(OSError):
                    fusemount.unmount(point, self._as_user, lazy=True)

    def _leave(self) -> None:
        """Leave no process behind, and no dead mount; and touch no other's."""
        for child in (self._standby, None if self.held_back else self._worker):
            if child is not None:
                child.kill()
        if self._server is not None:
            self._server.close()
        held = self.held
        if self.held_back:
            return  # somebody else has all of it now
        self._detach()
        if held is not None:
            for name, _ in [*held.bundle(), ("record", None)]:
                self._keeper.remove(name)
