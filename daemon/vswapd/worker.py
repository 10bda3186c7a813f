"""The worker: everything that serves one device, from its state to its connection.

It goes on from what its predecessor left, who may have been killed at any moment, or begins
with a new state: that is the same, with nothing in it. docs/concurrency.md has the rules.
"""

from __future__ import annotations

import gc
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import pyfuse3
import trio

import vswap
from vswap.errors import UserError
from vswap.store import Policy, State, Store
from vswapd import channel, memory
from vswapd.background import in_background
from vswapd.channel import Channel, Handshake, Outstanding
from vswapd.config import Settings
from vswapd.control import (
    Bridge,
    Control,
    DeviceInfo,
    History,
    Namespace,
    Report,
    Rings,
    commands_of,
)
from vswapd.ending import claim
from vswapd.office import Office
from vswapd.ownpages import own_stack
from vswapd.sdnotify import Keeper
from vswapd.statusline import keep_told

__all__ = ["Charge", "Worker", "policy_of"]

_QUIET_SECONDS = 1.0
_JOIN_SECONDS = 5.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


@dataclass(frozen=True)
class Charge:
    """What a worker is given to serve.

    `connection` is the descriptor; `agreed` is None if the handshake is still to come.
    `backing` is the descriptor and the path of what a predecessor had attached. `ended` is the
    process number of that predecessor, if it has come to its end.
    """

    connection: int
    agreed: Handshake | None
    backing: tuple[int, str] | None
    restarts: int
    supervisor: int
    ended: int | None = None


def policy_of(settings: Settings) -> Policy:
    """How the store is to be set."""
    return Policy(
        settings.codec,
        settings.unit_pages,
        settings.memory_limit,
        keep_table=settings.is_small,
        loaded_first=settings.loaded_first,
    )


class Worker:
    """One device, from its state to its connection."""

    def __init__(
        self,
        settings: Settings,
        preparation: memory.Preparation,
        state: State,
        office: Office,
        charge: Charge,
        rings: Rings,
        then: Callable[[], None] = lambda: None,
    ) -> None:
        """Make the store out of the state. Raises `UserError`.

        Waits until no other process works on it: one that is being killed has its last
        system calls to finish. `then` is called when requests are being answered.
        """
        self._settings = settings
        self._preparation = preparation
        self._state = state
        self._office = office
        self._charge = charge
        self._rings = rings
        self._then = then
        self._began = int(time.time())
        if claim(state.header.fd, charge.ended) and not office.is_open:
            raise UserError("the supervisor has ended meanwhile, and others see to the device")
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._store = Store(state, policy_of(settings), self._wake)
        self._attach_first()
        if charge.agreed is None:
            self._store.maintain()  # the data threads' open segments come out of these
        self._serving = False
        self._has_ended = False
        self._token: trio.lowlevel.TrioToken | None = None
        self._closed = trio.Event()
        self._stirred = trio.Event()

    def _attach_first(self) -> None:
        """The backing that was attached before, or the one that the settings name."""
        settings, charge = self._settings, self._charge
        kept = None if charge.backing is None else self._office.kept_backing(*charge.backing)
        if charge.agreed is not None and kept is None:
            self._store.backing.stop_detach()  # it came to its end, and only the mark was left
        if kept is not None:
            self._store.backing.attach(kept, again=True)
        elif charge.agreed is None and settings.backing is not None:
            self._attach(settings.backing)
        if charge.agreed is None and settings.writeback_limit is not None:
            self._store.backing.set_writeback_limit(settings.writeback_limit)
            self._store.backing.enable_writeback_limit(settings.writeback_limit > 0)

    def _attach(self, path: str) -> None:
        """Write back to a file from now on. Raises `UserError`, `OSError`."""
        if not self._preparation.memory_locked:
            raise UserError(
                "a backing needs locked memory, for its key must not get to a disk; give the "
                "daemon CAP_IPC_LOCK or LimitMEMLOCK=infinity"
            )
        found = self._store.backing.statistics()
        if found.backing_state != "none":  # or the supervisor would let go of that one
            raise UserError(f"{found.backing} is attached already")
        backing = self._office.open_backing(path)
        try:
            self._store.backing.attach(backing)
        except BaseException:
            backing.close()
            raise

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def serve(self) -> bool:
        """Serve until the file system is unmounted; whether nothing failed.

        Raises anything, `UserError` for the expected, if it cannot start.
        """
        with ExitStack() as undo:
            agreed = self._agree()
            self._outstanding = Outstanding(self._state.outstanding.view)
            self._bridge = Bridge(self._charge.connection, self._outstanding.answered)
            self._bridge.offer(agreed)
            undo.callback(self._bridge.close)
            self._serve_data(agreed)
            trio.run(self._run)
            self._channel.join(_JOIN_SECONDS)
            if self._channel.failed:
                return False  # a successor needs the backing: nobody must let go of it
            self._store.close()
            return True

    def _serve_data(self, agreed: Handshake) -> None:
        """Answer what was left, and start the data plane; the rest may come a little later."""
        self._channel = Channel(
            self._charge.connection,
            self._state,
            self._store,
            outstanding=self._outstanding,
            spin_us=self._settings.spin_us if len(os.sched_getaffinity(0)) > 1 else 0,
            forward=self._bridge.forward,
            prepare=_prepare_thread,
            on_end=self._on_end,
        )
        if self._charge.agreed is not None:
            self._channel.take_over(resend=agreed.resends)
        else:
            self._store.maintain()  # and are made up for
        gc.freeze()
        self._channel.start()
        self._then()

    def _on_end(self) -> None:
        """The last data thread ends, perhaps before trio runs."""
        self._has_ended = True
        if self._token is not None:
            self._token.run_sync_soon(self._closed.set)

    def _agree(self) -> Handshake:
        """The handshake, or what it came to when it was made."""
        if self._charge.agreed is not None:
            return self._charge.agreed
        buffer = channel.receive_buffer(self._state.buffer(0))
        agreed = channel.handshake(self._charge.connection, buffer)
        self._office.keep_handshake(agreed)
        return agreed

    async def _run(self) -> None:
        self._token = token = trio.lowlevel.current_trio_token()
        if self._has_ended:
            self._closed.set()
        stir = partial(token.run_sync_soon, self._stir)
        control = Control(commands_of(self._store, self._attach, stir))
        size, generation = self._settings.size, self._charge.restarts
        history = History(self._report, self._rings)
        history.begin(time.time())
        self._bridge.start(Namespace(size, self._report, control, history, generation))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_going, pyfuse3.main)
            await self._bridge.greet()
            nursery.start_soon(self._keep_going, self._bridge.relay)
            nursery.start_soon(self._keep_going, self._keep_ready)
            nursery.start_soon(self._keep_going, self._keep_small)
            nursery.start_soon(self._keep_going, history.keep)
            if address := os.environ.get("NOTIFY_SOCKET"):
                told = partial(keep_told, Keeper(address), self._store.statistics)
                nursery.start_soon(self._keep_going, told)
            if self._rings.is_new:  # said first: who is forked from now on is given them
                self._office.keep_history(self._rings.fd)
            self._serving = True
            self._office.serving(self._channel.thread_ids())
            await self._closed.wait()
            if not self._channel.failed:
                self._office.closed()
            nursery.cancel_scope.cancel()

    async def _keep_ready(self) -> None:
        """Keep free segments ready, whenever the store asks for it."""
        while True:
            await trio.lowlevel.wait_readable(self._wake_fd)
            os.eventfd_read(self._wake_fd)
            await self._try_in_background(self._store.maintain)

    async def _keep_small(self) -> None:
        """Clean, move down and write back, piece by piece, as often as the store wants it."""
        while True:
            pause: float | None = _QUIET_SECONDS
            if self._settings.clean or self._store.backing.detaching:
                pause = await self._try_in_background(self._store.step)
            with trio.move_on_after(_QUIET_SECONDS if pause is None else pause):
                await self._stirred.wait()
                self._stirred = trio.Event()

    def _stir(self) -> None:
        """There is something new to do in the background."""
        self._stirred.set()

    async def _try_in_background(self, work: Callable[[], T]) -> T | None:
        """What `work` answers; None if there was no memory for it."""
        try:
            return await in_background(work)
        except OSError as error:
            _log.warning("no memory to keep segments ready: %s", error.strerror)
            await trio.sleep(_QUIET_SECONDS)
            return None

    async def _keep_going(self, task: Callable[[], Awaitable[None]]) -> None:
        """Run `task` again whenever it fails: swap must outlive a fault beside the data plane.

        Until the worker serves a failure is one of the start.
        """
        while True:
            try:
                await task()
            except Exception:
                if not self._serving:
                    raise
                name = getattr(task, "__name__", task)
                _log.exception("%s has failed and is started again", name)
            await trio.sleep(_QUIET_SECONDS)

    def _report(self) -> Report:
        settings = self._settings
        return Report(
            DeviceInfo(
                name=settings.name,
                version=vswap.__version__,
                codec=settings.codec,
                unit_pages=settings.unit_pages,
                spin_us=settings.spin_us,
                supervisor_pid=self._charge.supervisor,
                worker_pid=os.getpid(),
                worker_began=self._began,
                worker_restarts=self._charge.restarts,
                data_threads=",".join(map(str, self._channel.thread_ids())),
            ),
            self._preparation,
            self._store.statistics(),
            self._channel.statistics(),
            self._channel.latencies(),
        )


def _prepare_thread() -> None:
    memory.prepare_thread(_log.warning)
    own_stack()
