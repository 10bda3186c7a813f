"""The worker: everything that serves one device, in one process.

``python -m vswapd.worker SETTINGS [--ready-fd N]`` with `Settings` as JSON. What becomes of
the start is told on descriptor N in one line: ``ready``, or ``error`` and the reason.
"""

from __future__ import annotations

import argparse
import errno
import gc
import logging
import math
import os
import signal
import sys
from contextlib import ExitStack, suppress

import pyfuse3
import trio

from vswap.errors import FullError, ProtocolError, UserError
from vswap.geometry import Geometry
from vswap.store import Policy, Shape, State, Store, segments_for
from vswapd import channel, memory, mounts
from vswapd.channel import Channel, Handshake
from vswapd.config import Settings
from vswapd.control import Bridge, Control, DeviceInfo, Namespace, Report
from vswapd.warmup import warm_up

__all__ = ["main"]

_SWITCH_SECONDS = 100e-6
"""How long a data thread waits at most while the control plane runs Python code."""

_QUIET_SECONDS = 1.0
_JOIN_SECONDS = 5.0

_log = logging.getLogger(__name__)


class Ready:
    """Tells whoever started the worker what became of it, once."""

    def __init__(self, fd: int | None) -> None:
        """`fd` None: nobody waits."""
        self._fd = fd

    def tell(self, line: str) -> None:
        """Write `line` and close."""
        if self._fd is not None:
            with suppress(BrokenPipeError):
                os.write(self._fd, line.encode() + b"\n")
            os.close(self._fd)
            self._fd = None


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
        policy = Policy(settings.codec, settings.unit_pages, settings.memory_limit)
        warm_up(policy)
        self._store = Store(self._state, policy, self._wake)
        self._store.maintain(idle=True)  # the data threads' open segments come out of these
        self._state.buffers.populate(0, self._state.buffers.size)
        self._closed = trio.Event()

    def _wake(self) -> None:
        os.eventfd_write(self._wake_fd, 1)

    def serve(self, ready: Ready) -> None:
        """Mount, and serve until the file system is unmounted. Raises `UserError`."""
        settings = self._settings
        fd = channel.open_and_mount(settings.mount, settings.name, settings.allow_fusermount)
        with ExitStack() as undo:
            undo.callback(os.close, fd)
            undo.callback(self._detach)
            buffer = channel.receive_buffer(self._state.buffer(0))
            agreed = channel.handshake(fd, buffer)
            self._bridge = Bridge(fd)
            undo.callback(self._bridge.close)
            trio.run(self._run, fd, agreed, ready)

    def _detach(self) -> None:
        """Leave no dead mount behind, whatever ended the connection."""
        mine = mounts.Device(self._settings.name, self._settings.mount)
        if mine in mounts.devices():
            with suppress(OSError):
                channel.unmount(mine.mount, self._settings.allow_fusermount, lazy=True)

    async def _run(self, fd: int, agreed: Handshake, ready: Ready) -> None:
        token = trio.lowlevel.current_trio_token()
        self._channel = Channel(
            fd,
            self._state,
            self._store,
            spin_us=self._settings.spin_us,
            forward=self._bridge.forward,
            prepare=_prepare_thread,
            on_end=lambda: token.run_sync_soon(self._closed.set),
        )
        self._store.maintain(idle=True)  # and are made up for
        control = Control({})
        self._bridge.start(Namespace(self._settings.size, self._report, control))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pyfuse3.main)
            await self._bridge.greet(agreed)
            nursery.start_soon(self._bridge.relay)
            nursery.start_soon(self._maintain)
            await nursery.start(self._stop_on_signal)
            gc.collect()
            gc.freeze()
            self._channel.start()
            ready.tell("ready")
            _log.info("serving %s/swap", self._settings.mount)
            await self._closed.wait()
            nursery.cancel_scope.cancel()
        self._channel.join(_JOIN_SECONDS)

    async def _maintain(self) -> None:
        """Maintain the store when it asks for it, and once more when it has become quiet."""
        patience = _QUIET_SECONDS
        while True:
            with trio.move_on_after(patience) as waiting:
                await trio.lowlevel.wait_readable(self._wake_fd)
                os.eventfd_read(self._wake_fd)
            quiet = waiting.cancelled_caught
            patience = math.inf if quiet else _QUIET_SECONDS
            try:
                await trio.to_thread.run_sync(self._store.maintain, quiet)
            except OSError as error:
                _log.warning("no memory to keep segments ready: %s", error.strerror)
                patience = _QUIET_SECONDS

    async def _stop_on_signal(self, task_status: trio.TaskStatus[None]) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            task_status.started()
            async for _ in signals:
                try:
                    # In a thread: unmounting waits for requests that this loop relays.
                    await trio.to_thread.run_sync(
                        channel.unmount, self._settings.mount, self._settings.allow_fusermount
                    )
                except OSError as error:
                    if error.errno != errno.EBUSY:
                        raise
                    _log.warning(
                        "%s is in use and goes on being served: `vswap down %s` ends it safely",
                        self._settings.mount,
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


def _prepare_thread() -> None:
    memory.prepare_thread(_log.warning)


def main() -> int:
    """Run one worker; answers the exit status."""
    parser = argparse.ArgumentParser(prog="vswapd.worker")
    parser.add_argument("settings")
    parser.add_argument("--ready-fd", type=int)
    arguments = parser.parse_args()
    logging.basicConfig(format="vswap: %(message)s", level=logging.INFO)
    sys.setswitchinterval(_SWITCH_SECONDS)
    if arguments.ready_fd is not None:
        os.set_inheritable(arguments.ready_fd, False)
    ready = Ready(arguments.ready_fd)
    try:
        settings = Settings.from_json(arguments.settings)
        preparation = memory.prepare_process(_log.warning)
        Worker(settings, preparation).serve(ready)
    except (UserError, FullError, ProtocolError) as error:
        ready.tell(f"error {error}")
        print(f"vswap: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
