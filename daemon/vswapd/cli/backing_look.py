"""Look at the place of a backing, for `vswap doctor`, as a program of its own.

``python -P -m vswapd.cli.backing_look FILE [BYTES]`` prints what it has found, as JSON. A program,
because a disk may not answer, and then whoever waits for it cannot be killed.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from vswap.errors import UserError
from vswapd.cli.backing_file import check_backing, is_missing
from vswapd.doctor import Finding, Level, Machine, guarded
from vswapd.doctor.disk import direct, folder, layers, room, rotation
from vswapd.doctor.finding import good, refusal
from vswapd.swapdev import run_program

__all__ = ["LOOK_SECONDS", "examine_backing", "look", "main"]

LOOK_SECONDS = 20.0
_CHECK = "backing"


def examine_backing(path: str, needed: int | None) -> Iterator[Finding]:
    """What `look` finds, if it does within `LOOK_SECONDS`."""
    size = [] if needed is None else [str(needed)]
    argv = [sys.executable, "-P", "-m", "vswapd.cli.backing_look", path, *size]
    try:
        ended = run_program(argv, LOOK_SECONDS)
    except TimeoutError:
        text = f"the disk of {path} does not answer (waited {LOOK_SECONDS:g} s)"
        yield Finding(Level.FAILURE, text, "choose another place", _CHECK)
        return
    if ended.code:
        raise ValueError(ended.last_line)
    for level, text, remedy in json.loads(ended.stdout):
        yield Finding(Level(level), text, remedy, _CHECK)


def look(machine: Machine, path: str, needed: int | None) -> Iterator[Finding]:
    """What is found at `path`, an absolute one, for a backing of `needed` bytes if that is said."""
    try:
        missing = is_missing(path)
        check_backing(path, needed)
    except UserError as error:
        remedy = "choose another place" if os.geteuid() == 0 else "root may get further"
        yield refusal(str(error), remedy)
        return
    place = Path(path)
    if not missing:
        yield good(f"{path} can back a device")
    yield from direct(place)
    yield from room(place, needed)
    yield from folder(place)
    yield from layers(machine, place)
    yield from rotation(machine, place)


def main(path: str, needed: str | None = None) -> int:
    """Print what is found; the exit status is 0 whatever that is."""
    size = None if needed is None else int(needed)
    found = guarded(_CHECK, look(Machine(), path, size))
    print(json.dumps([[finding.level, finding.text, finding.remedy] for finding in found]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
