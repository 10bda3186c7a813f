"""vswap against the limit of its transport: a C file system that does nothing.

    sudo ./vswap.sh bench limit [--rounds N] [--seconds S] [--json FILE]

Both are measured in turns in one run, and what counts is the ratio of the medians: the
machine's speed cancels out. Pages are real process memory (bench/corpus.py).
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import lz4.block

from bench.measure import OUT, load, read_4k, source
from bench.options import common, guarded, need_root, settings
from bench.peers import Peer, Vswap, nullfs, vswap
from bench.report import Aim, Figures, save, show

SIZE = 1 << 30

AIMS = {
    "4K read, depth 1: mean us": Aim(1.3, at_most=True, of_ratio=True),
    "4K read, depth 16: reads/s": Aim(0.5, of_ratio=True),
    "128K write: MB/s per core busy": Aim(600),
    "minor faults per 10,000 writes": Aim(0, at_most=True),
    "minor faults per 10,000 reads, depth 1": Aim(0, at_most=True),
    "minor faults per 10,000 reads, depth 16": Aim(0, at_most=True),
}


def write_128k(peer: Peer, corpus_file: Path, size: int) -> Figures:
    """128 KiB writes in two streams: MB/s, and MB per second of the server's processor time."""
    before = peer.cpu_seconds()
    wrote = load(peer.device, corpus_file, size, streams=2)
    busy = peer.cpu_seconds() - before
    return {
        "128K write: MB/s": wrote["bytes"] / wrote["seconds"] / 1e6,
        "128K write: MB/s per core busy": wrote["bytes"] / busy / 1e6,
    }


def faults(peer: Peer, run: Callable[[], Figures], about: str) -> Figures:
    """`run`'s figures, and the data threads' minor faults per 10,000 requests meanwhile."""
    if not isinstance(peer, Vswap):
        return run()
    faults_before, requests_before = peer.minor_faults(), _requests(peer)
    figures = run()
    requests = _requests(peer) - requests_before
    figures[f"minor faults per 10,000 {about}"] = (
        (peer.minor_faults() - faults_before) * 10_000 / requests
    )
    return figures


def _requests(peer: Vswap) -> int:
    stats = peer.stats()
    return int(stats["reads"]) + int(stats["writes"])


def codec_alone(corpus_file: Path) -> Figures:
    """lz4 by itself on the same data, in units of 16 KiB: what no store on it can exceed."""
    unit, taken = 16 << 10, 64 << 20
    data = memoryview(corpus_file.read_bytes()[:taken])
    began = time.process_time()
    for at in range(0, taken, unit):
        lz4.block.compress(data[at : at + unit], store_size=False)
    return {"lz4 alone: MB/s per core busy": taken / (time.process_time() - began) / 1e6}


def measure(peer: Peer, corpus_file: Path, seconds: float) -> Figures:
    """All figures of one peer, in the steady state: everything has been written before."""
    write_128k(peer, corpus_file, SIZE)
    read_4k(peer, 16, 0.5)
    return {
        **(codec_alone(corpus_file) if peer.name == "vswap" else {}),
        **faults(peer, lambda: write_128k(peer, corpus_file, SIZE), "writes"),
        **faults(peer, lambda: read_4k(peer, 1, seconds), "reads, depth 1"),
        **faults(peer, lambda: read_4k(peer, 16, seconds), "reads, depth 16"),
    }


def compare(
    rounds: int, seconds: float, with_settings: dict[str, object]
) -> dict[str, list[Figures]]:
    """Both peers in turns, as lists of figures by the peer's name."""
    corpus_file = source()
    threads = min(len(os.sched_getaffinity(0)), 4)
    peers: list[Callable[[], AbstractContextManager[Peer]]] = [
        lambda: vswap(SIZE, **with_settings),
        lambda: nullfs(SIZE, threads, OUT),
    ]
    results: dict[str, list[Figures]] = defaultdict(list)
    for number in range(rounds):
        for start in peers:
            with start() as peer:
                print(f"round {number + 1} of {rounds}: {peer.name}", file=sys.stderr)
                results[peer.name].append(measure(peer, corpus_file, seconds))
    return results


def main() -> int:
    parser = common(__doc__, rounds=3)
    parser.add_argument("--seconds", type=float, default=4.0, help="of each read measurement")
    arguments = parser.parse_args()
    if not need_root():
        return 2
    results = compare(arguments.rounds, arguments.seconds, settings(arguments.set))
    save(arguments.json, results)
    show("the limit of the transport", results, {"vswap": AIMS}, base="do-nothing C")
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
