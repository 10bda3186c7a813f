"""What is behind the default codec and unit size. Prints Markdown.

    sudo ./vswap.sh bench codecs [--only device alone] [--rounds N] [--json FILE]

device  each codec with each unit size, from end to end: a memory hog, 128 KiB writes in two
        streams, 4 KiB reads, and how small the pages become; in turns
alone   compressors by themselves: levels for what is moved down, and a trained dictionary
"""

from __future__ import annotations

import sys
from collections import defaultdict
from dataclasses import asdict
from pathlib import Path

from bench.codec_alone import TRAINING_MIB, Alone, cold_levels, dictionaries, sample
from bench.hog import Hog, run_hog
from bench.limit import write_128k
from bench.measure import MIB, read_4k, source
from bench.options import common, guarded, need_root, settings
from bench.peers import vswap
from bench.report import Figures, markdown, median, save

CODECS = ("lz4", "zstd-fast", "zstd")
UNITS = (1, 2, 4, 8)
DEVICE_SIZE = 1 << 30
WRITTEN = 512 * MIB
SAMPLE_MIB = 32

COLUMNS = {  # of a device's table: figure to heading and digits
    "hog, seq: pages/s": ("hog in order, pages/s", 0),
    "hog, random: pages/s": ("hog at random, pages/s", 0),
    "128K write: MB/s": ("128K write, MB/s", 0),
    "128K write: MB/s per core busy": ("per core busy, MB/s", 0),
    "4K read, depth 1: mean us": ("4K read, mean us", 1),
    "orig_data_size / compr_data_size": ("ratio", 2),
}

Rounds = dict[str, list[Figures]]


def of_device(
    corpus_file: Path, chosen: dict[str, object], seconds: float, hog_mib: int
) -> Figures:
    """All figures of one configuration: one new device for requests, and one for each hog."""
    with vswap(DEVICE_SIZE, **chosen) as peer:
        write_128k(peer, corpus_file, WRITTEN)
        found = write_128k(peer, corpus_file, WRITTEN)
        stats = peer.stats()
        found["orig_data_size / compr_data_size"] = (
            stats["orig_data_size"] / stats["compr_data_size"]
        )
        found.update(read_4k(peer, 1, seconds))
    for order in ("seq", "random"):
        with vswap(DEVICE_SIZE, **chosen) as peer:
            hogged = run_hog(peer, corpus_file, Hog(order, hog_mib, hog_mib // 4))
        if "in all: pages/s" in hogged:
            found[f"hog, {order}: pages/s"] = hogged["in all: pages/s"]
    return found


def devices(
    corpus_file: Path,
    configurations: list[tuple[str, int]],
    rounds: int,
    seconds: float,
    hog_mib: int,
    others: dict[str, object],
) -> Rounds:
    """Every codec with every unit size, in turns, as lists of figures by both."""
    results: Rounds = defaultdict(list)
    for number in range(rounds):
        for codec, unit in configurations:
            print(f"round {number + 1} of {rounds}: {codec}, {unit} pages", file=sys.stderr)
            chosen = {**others, "codec": codec, "unit_pages": unit}
            results[f"{codec}, {unit}"].append(of_device(corpus_file, chosen, seconds, hog_mib))
    return results


def device_table(results: Rounds) -> str:
    """Medians, a line for each codec with each unit size."""
    rows = []
    for name, rounds in results.items():
        values = ((median(rounds, figure), digits) for figure, (_, digits) in COLUMNS.items())
        rows.append([name, *("" if v is None else f"{v:,.{digits}f}" for v, digits in values)])
    return markdown(["codec, pages of a unit", *(name for name, _ in COLUMNS.values())], rows)


def cold_table(levels: dict[int, Alone]) -> str:
    """A line for each level."""
    rows = [
        [f"zstd {level}", f"{a.ratio:.2f}", f"{a.compress_mb_s:,.0f}", f"{a.decompress_us:,.0f}"]
        for level, a in levels.items()
    ]
    return markdown(["64 KiB units", "ratio", "compress, MB/s", "decompress a unit, us"], rows)


def dictionary_table(found: dict[tuple[int, int, bool], Alone]) -> str:
    """A line for each unit and level, without and with."""
    rows = []
    for (unit, level, has_one), without in found.items():
        if has_one:
            continue
        with_one = found[unit, level, True]
        rows.append(
            [
                f"{unit >> 10} KiB, zstd {level}",
                *(f"{without.ratio:.2f}", f"{with_one.ratio:.2f}"),
                *(f"{without.compress_mb_s:,.0f}", f"{with_one.compress_mb_s:,.0f}"),
                *(f"{without.decompress_us:,.1f}", f"{with_one.decompress_us:,.1f}"),
            ]
        )
    header = ["unit", "ratio", "with", "compress, MB/s", "with", "decompress, us", "with"]
    return markdown(header, rows)


def alone(corpus_file: Path, mib: int) -> dict[str, object]:
    """Measure and print what needs no device; the figures."""
    data = sample(corpus_file, mib, part=0, parts=2)
    levels = cold_levels(data)
    print(f"\nWhat is moved down, {len(data) // MIB} MiB:\n\n{cold_table(levels)}", flush=True)
    found = dictionaries(data, sample(corpus_file, TRAINING_MIB, part=1, parts=2))
    print(f"\nA dictionary of 112 KiB:\n\n{dictionary_table(found)}")
    return {
        "cold": {str(level): asdict(one) for level, one in levels.items()},
        "dictionary": {
            f"{unit >> 10} KiB, {level}, {'with' if has_one else 'without'}": asdict(one)
            for (unit, level, has_one), one in found.items()
        },
    }


def main() -> int:
    parser = common(__doc__, rounds=3)
    parts = ("device", "alone")
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, metavar="PART")
    parser.add_argument("--codecs", nargs="+", default=CODECS, metavar="NAME")
    parser.add_argument("--units", nargs="+", type=int, default=UNITS, metavar="PAGES")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each reading (3)")
    parser.add_argument("--hog-mib", type=int, default=512, metavar="N", help="(512)")
    parser.add_argument("--sample-mib", type=int, default=SAMPLE_MIB, help="for `alone` (32)")
    arguments = parser.parse_args()
    results: dict[str, object] = {}
    corpus_file = source()
    if "device" in arguments.only:
        if not need_root():
            return 2
        configurations = [(codec, unit) for codec in arguments.codecs for unit in arguments.units]
        measured = devices(
            *(corpus_file, configurations, arguments.rounds, arguments.seconds),
            *(arguments.hog_mib, settings(arguments.set)),
        )
        results["device"] = measured
        print(f"Medians of {arguments.rounds}:\n\n{device_table(measured)}", flush=True)
    if "alone" in arguments.only:
        results["alone"] = alone(corpus_file, arguments.sample_mib)
    save(arguments.json, results)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
