"""Who could change what a unit of root's runs: the program, its interpreter, its code."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

import click

import vswapd

__all__ = ["doubts", "who_could_change"]

_OWNERS = (0,)


def doubts(program: str, root: Path) -> Iterator[str]:
    """What speaks against units that run `program` as root in the system below `root`."""
    if root != Path("/"):
        if not os.path.lexists(root / program.lstrip("/")):
            yield f"there is no {program} in {root}, which the units are to start"
        return
    code = (program, sys.executable, vswapd.__file__, click.__file__)
    if found := who_could_change(map(Path, code), _OWNERS):
        yield f"root would run what others can change: {found}; install vswap where that is not so"


def who_could_change(paths: Iterable[Path], owners: Collection[int]) -> str | None:
    """The first of these paths, or of the directories above, that is not the `owners`' alone.

    With the reason, for a person. What is not there is nobody's.
    """
    for path in paths:
        for place in (path.absolute(), path.resolve()):  # a link can be changed too
            for step in reversed([place, *place.parents]):
                if why := _reason(step, owners):
                    return f"{step} {why}"
    return None


def _reason(path: Path, owners: Collection[int]) -> str | None:
    try:
        found = path.lstat()
    except OSError:
        return None
    if found.st_uid not in owners:
        return f"belongs to user {found.st_uid}"
    # A link has no mode of its own; in a sticky directory only owners replace what is there.
    if stat.S_ISLNK(found.st_mode) or found.st_mode & stat.S_ISVTX:
        return None
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return "can be written by others than its owner"
    return None
