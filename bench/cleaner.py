"""What the cleaner gains and costs.

    sudo ./vswap.sh bench cleaner [--only hog reads loaded] [--rounds N] [--json FILE]

hog     a program under memory pressure, with the cleaner and without it
reads   4 KiB reads of a device at rest, and of one that is being cleaned
loaded  the same program with too little memory for its pages, with those that were read
        moved down first and without
"""

from __future__ import annotations

import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.disturbed import AT_REST, CLEANING, Reading, read_disturbed
from bench.hog import Hog, run_hog
from bench.measure import MIB, source
from bench.options import common, guarded, need_root, settings
from bench.peers import vswap
from bench.report import Aim, Figures, median, save, show, show_cases

DEVICE_SIZE = 1 << 30
SCARCE = 0.7  # of the memory that the hog would take
PEAK = "peak mem_used_total, MiB"
ORDERS = ("seq", "random")
READ_AIM = {"4K read, depth 1: p99 us": Aim(3.0, at_most=True, of_ratio=True)}

Settings = dict[str, object]
Rounds = dict[str, list[Figures]]


def hogs(
    variants: Mapping[str, Settings], hog: Hog, corpus_file: Path, rounds: int, common_: Settings
) -> Rounds:
    """The hog with each variant of the settings, in turns; each on a new device."""
    results: Rounds = {name: [] for name in variants}
    for number in range(rounds):
        for name, own in variants.items():
            print(f"hog, {hog.order}, {name}: round {number + 1} of {rounds}", file=sys.stderr)
            with vswap(DEVICE_SIZE, **{**common_, **own}) as peer:
                results[name].append(run_hog(peer, corpus_file, hog))
    return results


def bench_hog(corpus_file: Path, rounds: int, hog: Hog, common_: Settings) -> Rounds:
    """With and without the cleaner."""
    variants: dict[str, Settings] = {"clean": {"clean": True}, "not": {"clean": False}}
    results = hogs(variants, hog, corpus_file, rounds, common_)
    aims = {"clean": {"in all: pages/s": Aim(1.0, of_ratio=True)}}
    show(f"the hog, {hog.order}, with the cleaner and without", results, aims, base="not")
    return results


def bench_loaded(corpus_file: Path, rounds: int, hog: Hog, common_: Settings) -> Rounds:
    """With and without `loaded_first`, in a part of the memory that it takes without a limit."""
    free = hogs({"no limit": {}}, hog, corpus_file, 1, common_)["no limit"]
    peak = median(free, PEAK)
    assert peak is not None
    limit = int(peak * SCARCE) * MIB
    variants: dict[str, Settings] = {
        "loaded first": {"memory_limit": limit, "loaded_first": True},
        "not": {"memory_limit": limit, "loaded_first": False},
    }
    results = {"no limit": free, **hogs(variants, hog, corpus_file, rounds, common_)}
    show(f"the hog, {hog.order}, in {limit // MIB} MiB", results, {}, base="not")
    return results


def bench_reads(corpus_file: Path, rounds: int, reading: Reading, common_: Settings) -> Rounds:
    """At rest and while being cleaned: in turns on one device, a new one for each round."""
    results: Rounds = defaultdict(list)
    for number in range(rounds):
        print(f"reads: round {number + 1} of {rounds}", file=sys.stderr)
        with vswap(reading.size, **common_) as peer:
            for case, figures in read_disturbed(peer, corpus_file, reading).items():
                results[case].append(figures)
    show_cases("reads beside the cleaner", results, dict.fromkeys(CLEANING, READ_AIM), AT_REST)
    return results


def main() -> int:
    parser = common(__doc__, rounds=2)
    parts = ("hog", "reads", "loaded")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART")
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=ORDERS, metavar="ORDER")
    parser.add_argument("--hog-mib", type=int, default=512, metavar="N", help="(512)")
    parser.add_argument("--limit-mib", type=int, default=128, help="of the hog's cgroup (128)")
    parser.add_argument("--read-mib", type=int, default=2048, metavar="N", help="read of (2048)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each reading (5)")
    arguments = parser.parse_args()
    if not need_root():
        return 2
    corpus_file, rounds, chosen = source(), arguments.rounds, settings(arguments.set)
    results: dict[str, Rounds] = {}
    reading = Reading(arguments.read_mib * MIB, arguments.seconds)
    per_hog: dict[str, Callable[[Path, int, Hog, Settings], Rounds]]
    per_hog = {"hog": bench_hog, "loaded": bench_loaded}
    for part in arguments.only:
        if part == "reads":
            results[part] = bench_reads(corpus_file, rounds, reading, chosen)
            continue
        for order in arguments.orders:
            hog = Hog(order, arguments.hog_mib, arguments.limit_mib)
            results[f"{part}, {order}"] = per_hog[part](corpus_file, rounds, hog, chosen)
    save(arguments.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
