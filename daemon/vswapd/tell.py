"""Tell a daemon what to do, by its file `ctl`, and wait until it has done it.

In a child, as all that touches a mount (vswapd/mounts.py). There is no time limit, for a
command may take minutes; instead it is looked now and then whether the daemon still answers.
"""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from vswap.errors import UserError, VswapError
from vswapd import ask
from vswapd.mounts import Device, failure, says
from vswapd.swapdev import Ended, start_program

__all__ = ["HUNG_SECONDS", "MAX_COMMAND", "FindingsError", "RefusedError", "write_ctl"]

HUNG_SECONDS = 15.0
MAX_COMMAND = 1000
_LOOK_SECONDS = 0.5
_ASK = Path(ask.__file__)
_abandoned: list[subprocess.Popen[bytes]] = []  # kept, for Popen complains when it is dropped


class FindingsError(VswapError):
    """A check has found the device's store unsound. The message is its findings, a line each."""


class RefusedError(VswapError):
    """The daemon could not do what it was told, for no fault of who told it."""


def write_ctl(device: Device, command: str, alive: Callable[[], object]) -> str:
    """Give the daemon a command, wait until it is done, and return the result.

    That can take minutes. `alive` is called about twice a second meanwhile and raises `UserError`
    if the daemon does not answer; when it has done so for `HUNG_SECONDS`, so does this. Raises
    `FindingsError` if a check has found something, `UserError` with the reason if the command
    was wrong, and `RefusedError` if the daemon could not do it. When this is interrupted the
    daemon goes on.
    """
    if len(command) > MAX_COMMAND:
        raise UserError(f"a command has at most {MAX_COMMAND} characters, and this {len(command)}")
    argv = [sys.executable, "-I", "-S", str(_ASK), f"{device.mount}/ctl"]
    ended = _wait_answer(device, start_program(argv, subprocess.PIPE), command, alive)
    result = ended.stdout.decode(errors="replace").strip()
    if ended.code == 0:
        return result
    if ended.code != ask.REFUSED:
        raise UserError(failure(device, ended))
    if says(ended, errno.EUCLEAN):
        raise FindingsError(result)
    reason = result.removeprefix("error: ") or f"the daemon of {device.name} refused {command!r}"
    raise UserError(reason) if says(ended, errno.EINVAL) else RefusedError(reason)


def _wait_answer(
    device: Device,
    process: subprocess.Popen[bytes],
    command: str,
    alive: Callable[[], object],
) -> Ended:
    said: bytes | None = os.fsencode(command) + b"\n"
    answered = time.monotonic()
    try:
        while True:
            try:
                stdout, stderr = process.communicate(said, _LOOK_SECONDS)
                return Ended(process.returncode, stdout, stderr)
            except subprocess.TimeoutExpired:
                said = None  # has been passed on
            try:
                alive()
                answered = time.monotonic()
            except UserError:
                if time.monotonic() > answered + HUNG_SECONDS:
                    raise
    except BaseException:
        _leave(process)
        raise


def _leave(process: subprocess.Popen[bytes]) -> None:
    """Kill it, and wait for nothing: it may not go before the daemon answers."""
    process.kill()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            with suppress(OSError):  # what stdin still had to give
                pipe.close()
    _abandoned.append(process)
