"""vswap against the limit of its transport: a C file system that does nothing.

    sudo ./vswap.sh bench [--rounds N] [--seconds S] [--json FILE]

Both are measured in turns in one run, and what counts is the ratio of the medians: the
machine's speed cancels out. Pages are real process memory (bench/corpus.py).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lz4.block
from rich.console import Console
from rich.table import Table

from bench.build import BuildError, build
from bench.corpus import corpus
from bench.peers import Peer, nullfs, vswap

OUT = Path(__file__).resolve().parent / "out"
SIZE = 1 << 30
REGION = 256 << 20
CORPUS_MIB = 256
_SECONDS = 300.0

Figures = dict[str, float]


@dataclass(frozen=True)
class Aim:
    """What a figure, or its ratio to the limit, should at least (or most) be."""

    bound: float
    at_most: bool = False
    of_ratio: bool = False

    def verdict(self, figure: float, ratio: float | None) -> str:
        """The aim in words, and whether it was met."""
        value = ratio if self.of_ratio and ratio is not None else figure
        met = value <= self.bound if self.at_most else value >= self.bound
        words = f"{'<=' if self.at_most else '>='} {self.bound:g}{'x' if self.of_ratio else ''}"
        return f"{words}: {'met' if met else 'missed'}"


AIMS = {
    "4K read, depth 1: mean us": Aim(1.3, at_most=True, of_ratio=True),
    "4K read, depth 16: reads/s": Aim(0.5, of_ratio=True),
    "128K write: MB/s per core busy": Aim(600),
    "minor faults per 10,000 writes": Aim(0, at_most=True),
    "minor faults per 10,000 reads, depth 1": Aim(0, at_most=True),
    "minor faults per 10,000 reads, depth 16": Aim(0, at_most=True),
}


def _run_json(*argv: str) -> dict[str, Any]:
    """Run a program to its end and return the JSON object that it printed."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=_SECONDS, check=True)
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def read_4k(peer: Peer, depth: int, seconds: float) -> Figures:
    """Random 4 KiB reads of pages that are in memory: microseconds and reads a second."""
    found = _run_json(
        *("fio", "--name=read", f"--filename={peer.device}", "--direct=1", "--rw=randread"),
        *("--bs=4k", f"--iodepth={depth}", "--ioengine=io_uring", f"--size={REGION}"),
        *("--norandommap", "--randrepeat=0", "--time_based", f"--runtime={seconds}"),
        "--output-format=json",
    )
    read = found["jobs"][0]["read"]
    return {
        f"4K read, depth {depth}: mean us": read["lat_ns"]["mean"] / 1e3,
        f"4K read, depth {depth}: p99 us": read["clat_ns"]["percentile"]["99.000000"] / 1e3,
        f"4K read, depth {depth}: reads/s": read["iops"],
    }


def write_128k(peer: Peer, source: Path, size: int) -> Figures:
    """128 KiB writes in two streams: MB/s, and MB per second of the server's processor time."""
    before = peer.cpu_seconds()
    wrote = _run_json(
        *(str(build("blkload", OUT)), "--device", peer.device, "--source", str(source)),
        *("--bytes", str(size), "--rw", "write", "--block", "128K", "--streams", "2", "--json"),
    )
    busy = peer.cpu_seconds() - before
    return {
        "128K write: MB/s": wrote["bytes"] / wrote["seconds"] / 1e6,
        "128K write: MB/s per core busy": wrote["bytes"] / busy / 1e6,
    }


def faults(peer: Peer, run: Callable[[], Figures], about: str) -> Figures:
    """`run`'s figures, and the data threads' minor faults per 10,000 requests meanwhile."""
    if peer.name != "vswap":
        return run()
    faults_before, requests_before = peer.minor_faults(), _requests(peer)
    figures = run()
    requests = _requests(peer) - requests_before
    figures[f"minor faults per 10,000 {about}"] = (
        (peer.minor_faults() - faults_before) * 10_000 / requests
    )
    return figures


def _requests(peer: Peer) -> int:
    stats = json.loads((peer.mount / "stats.json").read_text())
    return int(stats["reads"]) + int(stats["writes"])


def codec_alone(source: Path) -> Figures:
    """lz4 by itself on the same data, in units of 16 KiB: what no store on it can exceed."""
    unit, taken = 16 << 10, 64 << 20
    data = memoryview(source.read_bytes()[:taken])
    began = time.process_time()
    for at in range(0, taken, unit):
        lz4.block.compress(data[at : at + unit], store_size=False)
    return {"lz4 alone: MB/s per core busy": taken / (time.process_time() - began) / 1e6}


def measure(peer: Peer, source: Path, seconds: float) -> Figures:
    """All figures of one peer, in the steady state: everything has been written before."""
    write_128k(peer, source, SIZE)
    read_4k(peer, 16, 0.5)
    return {
        **(codec_alone(source) if peer.name == "vswap" else {}),
        **faults(peer, lambda: write_128k(peer, source, SIZE), "writes"),
        **faults(peer, lambda: read_4k(peer, 1, seconds), "reads, depth 1"),
        **faults(peer, lambda: read_4k(peer, 16, seconds), "reads, depth 16"),
    }


def compare(rounds: int, seconds: float, settings: dict[str, object]) -> dict[str, list[Figures]]:
    """Both peers in turns, as lists of figures by the peer's name."""
    OUT.mkdir(exist_ok=True)
    source = corpus(OUT / "corpus.bin", CORPUS_MIB)
    threads = min(len(os.sched_getaffinity(0)), 4)
    peers: list[Callable[[], AbstractContextManager[Peer]]] = [
        lambda: nullfs(SIZE, threads, OUT),
        lambda: vswap(SIZE, **settings),
    ]
    results: dict[str, list[Figures]] = defaultdict(list)
    for number in range(rounds):
        for start in peers:
            with start() as peer:
                print(f"round {number + 1} of {rounds}: {peer.name}", file=sys.stderr)
                results[peer.name].append(measure(peer, source, seconds))
    return results


def show(results: dict[str, list[Figures]]) -> None:
    """Medians of each, with the spread, and ours over theirs."""
    ours, limit = results["vswap"], results["do-nothing C"]
    table = Table(title="median (least to most)", title_justify="left")
    for column in ("figure", "vswap", "do-nothing C", "ratio", "aim"):
        table.add_column(column, justify="left" if column == "figure" else "right")
    for figure in ours[0]:
        mine = [run[figure] for run in ours]
        theirs = [run[figure] for run in limit if figure in run]
        ratio = statistics.median(mine) / statistics.median(theirs) if theirs else None
        aim = AIMS[figure].verdict(statistics.median(mine), ratio) if figure in AIMS else ""
        shown = "" if ratio is None else f"{ratio:.2f}"
        table.add_row(figure, _spread(mine), _spread(theirs), shown, aim)
    Console(width=120).print(table)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    digits = 1 if max(values) < 1000 else 0
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each read measurement")
    parser.add_argument("--json", type=Path, help="write every figure of every round here")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    arguments = parser.parse_args()
    if os.geteuid():
        print("bench: needs root for mounts and loop devices", file=sys.stderr)
        return 2
    pairs = (pair.partition("=") for pair in arguments.set)
    settings = {name: int(value) if value.isdigit() else value for name, _, value in pairs}
    try:
        results = compare(arguments.rounds, arguments.seconds, settings)
    except BuildError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=1))
    show(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
