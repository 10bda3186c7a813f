"""The memory hog on a device: a process that needs more memory than its cgroup has.

bench/c/hog.c fills memory and checks every page again and again; the cgroup makes the kernel
swap most of it to the device. What it does in a second is what a program under memory
pressure gets.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.build import build
from bench.cgroup import MemoryCgroup
from bench.measure import MIB, OUT
from bench.peers import Vswap, swapping
from bench.report import Figures
from bench.sampler import Samples, sampling

__all__ = ["Ended", "Hog", "HogError", "figures", "judged", "run_hog", "run_in", "speeds"]

SAMPLE_SECONDS = 0.25
WATCHED = ("mem_used_total", "compr_data_size", "stored_pages", "failed_writes")


class HogError(Exception):
    """A page came back wrong, or not at all: nothing to be measured."""


@dataclass(frozen=True)
class Hog:
    """What the hog does, and in how much memory. `seconds` is when it is given up.

    One that is to `hold` waits for a line of input after the fill.
    """

    order: str = "seq"
    mib: int = 512
    limit_mib: int = 128
    passes: int = 2
    rewrite: float = 0.5
    seconds: float = 600.0
    hold: bool = False

    def command(self, source: Path) -> list[str]:
        """The hog's command line."""
        return [
            *(str(build("hog", OUT)), "--size", str(self.mib * MIB), "--source", str(source)),
            *("--passes", str(self.passes), "--rewrite", str(self.rewrite)),
            *("--order", self.order, *(["--hold"] if self.hold else []), "--json"),
        ]

    def group(self) -> MemoryCgroup:
        """The cgroup that it is to run in."""
        return MemoryCgroup(self.limit_mib * MIB, f"vswap-bench-{os.getpid()}")


@dataclass(frozen=True)
class Ended:
    """What a hog printed, and whether it was killed or took too long instead."""

    printed: Mapping[str, Any]
    killed: bool


def run_in(group: MemoryCgroup, source: Path, hog: Hog) -> Ended:
    """Let it run to its end. Raises `HogError` for a wrong page."""
    try:
        done = group.run(hog.command(source), hog.seconds)
    except subprocess.TimeoutExpired:
        return Ended({}, killed=True)
    return judged(done, group.oom_kills() > 0)


def judged(done: subprocess.CompletedProcess[str], killed: bool) -> Ended:
    """How it ended. Raises `HogError` for a wrong page, or one that could not be read."""
    said = done.stdout.splitlines()
    printed = json.loads(said[-1]) if said and said[-1].startswith("{") else {}
    if (done.returncode > 0 or printed.get("mismatches")) and not killed:
        raise HogError(f"the hog ended with {done.returncode}: {done.stderr.strip()}")
    return Ended(printed, killed or not printed)


def run_hog(peer: Vswap, source: Path, hog: Hog) -> Figures:
    """Let it run to its end with its swap on `peer`, which must be new, and watch that.

    Raises `HogError` for a wrong page. One that was killed, or took too long, gives no speed.
    """
    with swapping(peer), hog.group() as group:
        with sampling(lambda: watched(peer), SAMPLE_SECONDS) as samples:
            ended = run_in(group, source, hog)
        samples.rows.append((samples.rows[-1][0] if samples.rows else 0.0, watched(peer)))
    return figures(ended.printed, samples, ended.killed)


def watched(peer: Vswap) -> Mapping[str, int]:
    """The fields of the statistics that matter here."""
    stats = peer.stats()
    return {name: int(stats[name]) for name in WATCHED}


def speeds(printed: Mapping[str, Any]) -> Figures:
    """Pages in a second, of each phase and of all, from what the hog printed.

    Without the time that it took to read its source.
    """
    found: Figures = {}
    pages = seconds = 0.0
    for phase in printed.get("phases", ()):
        spent = phase["seconds"] - phase["source_seconds"]
        pages, seconds = pages + phase["pages"], seconds + spent
        if spent > 0:
            found[f"{phase['phase']}: pages/s"] = phase["pages"] / spent
    if seconds > 0:
        found["in all: pages/s"] = pages / seconds
    return found


def figures(printed: Mapping[str, Any], samples: Samples, killed: bool) -> Figures:
    """Speeds from what the hog printed, and the most of what the device held."""
    return {
        **speeds(printed),
        "peak mem_used_total, MiB": samples.most("mem_used_total") / MIB,
        "peak compr_data_size, MiB": samples.most("compr_data_size") / MIB,
        "peak pages on the device": samples.most("stored_pages"),
        "failed writes": samples.last("failed_writes"),
        "hogs that did not finish": float(killed),
    }
