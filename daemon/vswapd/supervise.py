"""Start a supervisor.

``python -m vswapd.supervise SETTINGS [--ready-fd N] [--foreground]`` with `Settings` as JSON makes
a device, or goes on with the one whose descriptors systemd has kept. What becomes of the start is
told on descriptor N in one line: ``ready``, or ``error`` and the reason. ``--lock-fd N`` is closed
then.
``python -m vswapd.supervise --inherit-fd N`` takes the place of the supervisor at the other
end of the socket N.
"""

from __future__ import annotations

import argparse
import io
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

from vswap import libc
from vswap.errors import UserError
from vswapd import memory
from vswapd.ballast import Ballast
from vswapd.ending import open_worker
from vswapd.handover import SUPERVISOR, Heir, Inheritance
from vswapd.heartbeat import Heartbeat
from vswapd.held import Record
from vswapd.kept import clear_away, take_device
from vswapd.logs import start_log, stop_log
from vswapd.messages import Link
from vswapd.mounts import loops_of
from vswapd.notify import Ready, Told, reason
from vswapd.offspring import FORK_SERVER
from vswapd.restarts import Desk
from vswapd.sdnotify import Keeper, keeps_device
from vswapd.supervisor import Supervisor

__all__ = ["main"]

_log = logging.getLogger(__name__)


class _Daemon:
    """A supervisor, and how it is asked to be replaced."""

    def __init__(self, supervisor: Supervisor, keeper: Keeper, command: Sequence[str]) -> None:
        self._supervisor = supervisor
        self._keeper = keeper
        self._command = command
        self._ballast = Ballast(self._find_loop)
        self._heartbeat = Heartbeat(keeper, os.environ)
        self._desk = self._open_desk()
        self.heir: Heir | None = None
        supervisor.on_hangup = self._replace
        supervisor.on_tick = self._look

    def _open_desk(self) -> Desk | None:
        """None if somebody has taken the address: a device is had all the same."""
        try:
            desk = Desk(self._replace)
        except OSError as error:
            _log.warning("`vswap restart` will not be heard, but SIGHUP: %s", error.strerror)
            return None
        self._supervisor.loop.watch(desk, desk.on_visitor)
        return desk

    def _replace(self) -> None:
        if self.heir is not None and not self.heir.ended:
            return  # it is being done
        if not self._supervisor.estate.is_open:
            self._tell("error the device is not ready yet")
            return
        self._supervisor.try_again()
        try:
            record_fd = self._keeper.record_fd
            self.heir = Heir(self._supervisor, record_fd, self._command, self._tell)
        except OSError as error:
            self._tell(f"error {error.strerror}")

    def _find_loop(self) -> str | None:
        loops = loops_of(self._supervisor.estate.record.point)
        return loops[0].rpartition("/")[2] if loops else None

    def _look(self, now: float) -> None:
        self._heartbeat.look(now)
        self._ballast.look()
        if self.heir is not None:
            self.heir.look(now)

    def _tell(self, line: str) -> None:
        if line == "ok":
            _log.info("another supervisor has taken over")
        else:
            _log.error("restart is refused, everything goes on as it was: %s", line[6:])
        if self._desk is not None:
            self._desk.tell(line)

    def close(self) -> None:
        self._ballast.close()
        if self._desk is not None:
            self._desk.close()


def main(fork_server: Sequence[str] = FORK_SERVER, supervisor: Sequence[str] = SUPERVISOR) -> int:
    """Supervise one device to its end; the exit status: 2 if it could not start, 1 if it failed.

    Not to go on with a device that systemd has kept is a failure: it is to be tried again, unless
    another supervisor has it.
    `fork_server` and `supervisor` are the programs to start, for tests.
    """
    parser = argparse.ArgumentParser(prog="vswapd.supervise")
    parser.add_argument("settings", nargs="?")
    parser.add_argument("--ready-fd", type=int)
    parser.add_argument("--lock-fd", type=int)
    parser.add_argument("--inherit-fd", type=int)
    parser.add_argument("--foreground", action="store_true")
    arguments = parser.parse_args()
    if isinstance(sys.stderr, io.TextIOWrapper):
        sys.stderr.reconfigure(errors="surrogateescape")  # paths are bytes
    told: Told = Ready(None)
    kept = keeps_device(os.environ)
    try:
        told = Ready(arguments.ready_fd, arguments.lock_fd)
        memory.prepare_process(lambda _: None)  # the fork server says what cannot be had
        memory.take_precedence(inherited=False)
        libc.prctl(libc.PR_SET_NAME, b"vswap-keeper")
        libc.prctl(libc.PR_SET_CHILD_SUBREAPER, 1)
        start_log()
        keeper = Keeper(os.environ.get("NOTIFY_SOCKET"))
        if arguments.inherit_fd is not None:
            os.set_inheritable(arguments.inherit_fd, False)
            told = inheritance = Inheritance(Link.of(arguments.inherit_fd))
            if inheritance.record_fd is not None:
                keeper.adopt(inheritance.record_fd)
            made = Supervisor(inheritance.held.record, told, keeper, fork_server)
            inheritance.begin(made)
        else:
            clear_away(os.environ, keeper)
            kept = keeps_device(os.environ)
            made = _make(arguments.settings, told, keeper, fork_server)
        more = ["--foreground"] if arguments.foreground else []
        daemon = _Daemon(made, keeper, [*supervisor, *more])
    except Exception as error:
        stop_log()
        why = reason(error)
        told.tell(f"error {why}")
        print(f"vswap: {why}", file=sys.stderr)
        return 1 if kept and not isinstance(error, UserError) else 2
    try:
        status = made.run()
    finally:
        daemon.close()
        stop_log()
    if arguments.foreground and made.held_back and daemon.heir is not None:
        return _stay_for(daemon.heir.process)
    return status


def _make(
    settings: str | None, told: Told, keeper: Keeper, fork_server: Sequence[str]
) -> Supervisor:
    """For a new device, or for the one that systemd has kept. Raises `UserError`.

    Settings are checked by the fork server, which has imported all that belongs to that.
    """
    held = take_device(os.environ, keeper)
    if held is not None:
        held.note(restarts=held.record.restarts + 1)  # whose file handles are another's
        made = Supervisor(held.record, told, keeper, fork_server)
        made.inherit(held)
        pidfd = open_worker(held.state[0])
        if pidfd is not None:
            made.follow(pidfd)
        return made
    if settings is None:
        raise UserError("no settings, and nothing to go on with")
    return Supervisor(Record(settings, ""), told, keeper, fork_server)


def _stay_for(heir: subprocess.Popen[bytes]) -> int:
    """A shell waits for us, not for the heir: pass on what we are told until that one ends."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _frame: heir.send_signal(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the heir, too
    return heir.wait()


if __name__ == "__main__":
    sys.exit(main())
