"""The worker: everything that serves one device, in one process.

``python -m vswapd.worker SETTINGS [--ready-fd N]`` with `Settings` as JSON. What becomes of
the start is told on descriptor N in one line: ``ready``, or ``error`` and the reason.
"""

from __future__ import annotations

import argparse
import gc
import io
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, suppress
from functools import partial
from types import FrameType
from typing import TypeVar

import pyfuse3
import trio

from vswap.errors import UserError
from vswap.geometry import Geometry
from vswap.store import Policy, Shape, State, Store, segments_for
from vswap.store.backing_file import FileBacking
from vswapd import channel, memory, mounts
from vswapd.background import in_background
from vswapd.channel import Channel, Handshake
from vswapd.config import Settings
from vswapd.control import Bridge, Control, DeviceInfo, Namespace, Report, commands_of
from vswapd.logs import start_log, stop_log
from vswapd.notify import Ready, reason
from vswapd.warmup import warm_up, warm_up_backing

__all__ = ["main"]

_SWITCH_SECONDS = 100e-6
"""How long a data thread waits at most while the control plane runs Python code."""

_QUIET_SECONDS = 1.0
_JOIN_SECONDS = 5.0

_log = logging.getLogger(__name__)

T = TypeVar("T")


class Worker:
    """One device, from its state to its mount."""

    def __init__(self, settings: Settings, preparation: memory.Preparation) -> None:
        """Make the state and the store; nothing is mounted yet. Raises `UserError`."""
        self._settings = settings
        self._preparation = preparation
        geometry = Geometry(settings.size)
        self._state = State.create(
            Shape(
                geometry,
                segments_for(geometry, settings.threads),
                settings.threads,
                channel.BUFFER_SIZE,
            )
        )
        self._wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._policy = policy = Policy(
            settings.codec,
            settings.unit_pages,
            settings.memory_limit,
            loaded_first=settings.loaded_first,
        )
        warm_up(policy)
        self._store = Store(self._state, policy, self._wake)
        if settings.backing is not None:
            self._attach(settings.backing)
        if settings.writeback_limit is not None:
            self._store.backing.set_writeback_limit(settings.writeback_limit)
            self._store.backing.enable_writeback_limit(settings.writeback_limit > 0)
        self._store.maintain()  # the data threads' open segments come out of these
        self._state.buffers.populate(0, self._state.buffers.size)
        self._closed = trio.Event()
        self._stirred = trio.Event()
        self._detached = False
        self._ending = False

    def _attach(self, path: str) -> None:
        """Write back to a file from now on. Raises `UserError`, `OSError`."""
        if not self._preparation.memory_locked:
            raise UserError(
                "a backing needs locked memory, for its key must not get to a disk; give the "
                "daemon CAP_IPC_LOCK or LimitMEMLOCK=infinity"
            )
        warm_up_backing(self._policy)
        backing = FileBacking.open(path)
        try:
            self._store.backing.attach(backing)
        except BaseException:
            backing.close()
            raise

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def serve(self, ready: Ready) -> bool:
        """Mount, and serve until the file system is unmounted; whether nothing failed.

        Raises anything, `UserError` for the expected, if it cannot start: nothing is mounted
        then.
        """
        with ExitStack() as undo:
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)
            undo.callback(self._ignore_signals)
            fd, path, mine = self._mount(undo)
            buffer = channel.receive_buffer(self._state.buffer(0))
            agreed = channel.handshake(fd, buffer)
            self._bridge = Bridge(fd)
            undo.callback(self._bridge.close)
            trio.run(self._run, fd, agreed, ready)
            self._detach(path, mine)  # at once: later the place may be a successor's
            self._channel.join(_JOIN_SECONDS)
            self._store.close()
            return not self._channel.failed

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        """Before trio has taken signals over. Once the end has begun there is nothing to do."""
        if not self._ending:
            self._ending = True
            raise KeyboardInterrupt

    def _ignore_signals(self) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    def _mount(self, undo: ExitStack) -> tuple[int, str, str | None]:
        """Mount and note how it is undone, with signals held back in between.

        Answers the connection, the place, and what tells this mount from others there.
        """
        settings = self._settings
        held = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        try:
            try:
                path = mounts.resolve(settings.mount)
            except OSError as error:
                raise UserError(f"cannot mount on {settings.mount}: {error.strerror}") from None
            fd = channel.open_and_mount(settings.mount, settings.name, settings.allow_fusermount)
            undo.callback(os.close, fd)
            mine = mounts.top_mount(path)
            undo.callback(self._detach, path, mine)
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
        return fd, path, mine

    def _detach(self, path: str, mine: str | None) -> None:
        """Leave no dead mount behind, whatever ended the connection, and touch no other's."""
        if mine is not None and not self._detached and mounts.top_mount(path) == mine:
            with suppress(OSError):
                channel.unmount(path, self._settings.allow_fusermount, lazy=True)
        self._detached = True

    async def _run(self, fd: int, agreed: Handshake, ready: Ready) -> None:
        try:
            await self._run_until_closed(fd, agreed, ready)
        finally:
            # Trio closes what signals are written to before it stops their being written there.
            self._ignore_signals()

    async def _run_until_closed(self, fd: int, agreed: Handshake, ready: Ready) -> None:
        token = trio.lowlevel.current_trio_token()
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            self._channel = Channel(
                fd,
                self._state,
                self._store,
                spin_us=self._settings.spin_us,
                forward=self._bridge.forward,
                prepare=_prepare_thread,
                on_end=lambda: token.run_sync_soon(self._closed.set),
            )
            self._store.maintain()  # and are made up for
            stir = partial(token.run_sync_soon, self._stir)
            control = Control(commands_of(self._store, self._attach, stir))
            self._bridge.start(Namespace(self._settings.size, self._report, control))
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_keep_going, pyfuse3.main, ready)
                await self._bridge.greet(agreed)
                nursery.start_soon(_keep_going, self._bridge.relay, ready)
                nursery.start_soon(_keep_going, self._keep_ready, ready)
                nursery.start_soon(_keep_going, self._keep_small, ready)
                nursery.start_soon(self._stop_on_signal, signals)
                gc.collect()
                gc.freeze()
                self._channel.start()
                ready.tell("ready")
                _log.info("serving %s/swap", self._settings.mount)
                await self._closed.wait()
                self._ending = True
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

    async def _stop_on_signal(self, signals: AsyncIterator[int]) -> None:
        """Unmount, which ends everything else, or say why not and go on."""
        async for _ in signals:
            try:
                # In a thread: unmounting waits for requests that this loop relays.
                await trio.to_thread.run_sync(
                    channel.unmount, self._settings.mount, self._settings.allow_fusermount
                )
            except OSError as error:
                _log.warning(
                    "%s goes on being served (%s): `vswap down %s` ends it safely",
                    self._settings.mount,
                    error.strerror,
                    self._settings.name,
                )

    def _report(self) -> Report:
        settings = self._settings
        return Report(
            DeviceInfo(
                name=settings.name,
                codec=settings.codec,
                unit_pages=settings.unit_pages,
                spin_us=settings.spin_us,
                supervisor_pid=os.getpid(),
                worker_pid=os.getpid(),
                worker_restarts=0,
                data_threads=",".join(map(str, self._channel.thread_ids())),
            ),
            self._preparation,
            self._store.statistics(),
            self._channel.statistics(),
        )


async def _keep_going(task: Callable[[], Awaitable[None]], ready: Ready) -> None:
    """Run `task` again whenever it fails: swap must outlive a fault beside the data plane.

    Until the worker is ready a failure is one of the start.
    """
    while True:
        try:
            await task()
        except Exception:
            if not ready.told:
                raise
            _log.exception("%s has failed and is started again", getattr(task, "__name__", task))
        await trio.sleep(_QUIET_SECONDS)


def _prepare_thread() -> None:
    memory.prepare_thread(_log.warning)


def main() -> int:
    """Run one worker; answers the exit status: 2 if it could not start, 1 if it failed."""
    parser = argparse.ArgumentParser(prog="vswapd.worker")
    parser.add_argument("settings")
    parser.add_argument("--ready-fd", type=int)
    arguments = parser.parse_args()
    sys.setswitchinterval(_SWITCH_SECONDS)
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="surrogateescape")  # paths are bytes
    ready = Ready(None)
    try:
        ready = Ready(arguments.ready_fd)
        settings = Settings.from_json(arguments.settings)
        warnings: list[str] = []
        preparation = memory.prepare_process(warnings.append)
        start_log()  # its thread is prepared like this one
        for warning in warnings:
            _log.warning("%s", warning)
        return 0 if Worker(settings, preparation).serve(ready) else 1
    except BaseException as error:
        if ready.told:
            raise
        stop_log()
        why = reason(error)
        ready.tell(f"error {why}")
        print(f"vswap: {why}", file=sys.stderr)
        return 2
    finally:
        stop_log()


if __name__ == "__main__":
    sys.exit(main())
