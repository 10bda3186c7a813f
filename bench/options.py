"""What the benchmarks' command lines have in common, and how they end."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path

from bench.build import BuildError
from bench.cgroup import CgroupError
from bench.corpus import CorpusError
from bench.hog import HogError
from bench.peers import CommandError, PeerError

__all__ = ["common", "guarded", "need_root", "parser_for", "settings"]


def parser_for(doc: str | None) -> argparse.ArgumentParser:
    """A parser with the option `--set`."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument(
        *("--set", "-s"),
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a setting of the device, as Settings names it",
    )
    return parser


def common(doc: str | None, rounds: int) -> argparse.ArgumentParser:
    """A parser with the options of most benchmarks."""
    parser = parser_for(doc)
    parser.add_argument("--rounds", type=int, default=rounds, metavar="N", help=f"({rounds})")
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="write every figure of every round here"
    )
    return parser


def settings(pairs: list[str]) -> dict[str, object]:
    """`NAME=VALUE` words as settings: numbers, true and false, or text."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, _, value = pair.partition("=")
        if value in ("true", "false"):
            found[name] = value == "true"
        else:
            found[name] = int(value) if value.isdigit() else value
    return found


def need_root() -> bool:
    """Whether this is root; says so if it is not."""
    if os.geteuid():
        print("bench: needs root for mounts, loop devices and swap", file=sys.stderr)
    return not os.geteuid()


def guarded(body: Callable[[], int]) -> int:
    """Run a benchmark; what the machine lacks, or a device refuses, is one line and status 2."""
    try:
        return body()
    except (BuildError, CgroupError, CommandError, CorpusError, HogError, PeerError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
