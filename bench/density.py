"""Memory for each stored page, against the kernel's zram with lz4.

    sudo ./vswap.sh bench density [--mib N] [--rounds N] [--json FILE]

Both get the same corpus in the same run, in 128 KiB writes. vswap is looked at twice: when
all is written, and when the cleaner has been over it, which compresses what is old in larger
units and harder. What a device costs that holds nothing is measured apart.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from pathlib import Path

from bench.measure import CORPUS_MIB, MIB, available_bytes, load, source, wait_for_rest
from bench.options import common, guarded, need_root, settings
from bench.peers import PeerError, Vswap, vswap, zram
from bench.report import Aim, Figures, save, show
from vswap.geometry import PAGE_SIZE

LARGE_MIB = 1024
EMPTY_SIZE = 32 << 30

MEMORY = "mem_used_total, MiB"
WRITTEN, CLEANED, ZRAM = "written", "cleaned", "zram"

AIMS = {
    WRITTEN: {MEMORY: Aim(0.70, at_most=True, of_ratio=True)},
    CLEANED: {
        MEMORY: Aim(0.55, at_most=True, of_ratio=True),
        "table and zeromap, bytes per used slot": Aim(10, at_most=True),
    },
}
EMPTY_AIMS = {"empty": {"header, table, zeromap, words, KiB": Aim(1023.99, at_most=True)}}


def default_mib() -> int:
    """A large corpus where there is room for it, its source and both devices."""
    return LARGE_MIB if available_bytes() >= 4 * LARGE_MIB * MIB else CORPUS_MIB


def of_zram(corpus_file: Path, size: int) -> Figures:
    """The kernel's figures of a corpus. Raises `PeerError` where there is no zram."""
    with zram(size + size // 4) as device:
        wrote = load(device.device, corpus_file, size)
        stat = device.mm_stat()
        return {**sizes(stat), "writing: s": wrote["seconds"]}


def sizes(stats: dict[str, int]) -> Figures:
    """Figures from fields that zram and vswap have by the same names."""
    used, data, pages = (
        stats["mem_used_total"],
        stats["compr_data_size"],
        stats["orig_data_size"] // PAGE_SIZE,
    )
    return {
        MEMORY: used / MIB,
        "compr_data_size, MiB": data / MIB,
        "mem_used_total / compr_data_size": used / data,
        "bytes per stored page": used / pages,
        "orig_data_size / mem_used_total": stats["orig_data_size"] / used,
    }


def of_vswap(peer: Vswap, corpus_file: Path, size: int) -> tuple[Figures, Figures]:
    """The same of ours, when it is written and when it has been cleaned."""
    cpu = peer.cpu_seconds_ever()
    wrote = load(peer.device, corpus_file, size)
    written = {
        **state(peer),
        "writing: s": wrote["seconds"],
        "writing: CPU s": peer.cpu_seconds_ever() - cpu,
    }
    recompressing = carried_out(peer, "recompress")
    compacting = carried_out(peer, "compact")
    return written, {**state(peer), **recompressing, **compacting}


def carried_out(peer: Vswap, command: str) -> Figures:
    """Have a command carried out, and wait until the device is at rest: what that took."""
    began, cpu = time.monotonic(), peer.cpu_seconds_ever()
    peer.command(command)
    answered = time.monotonic()
    ended = max(answered, wait_for_rest(peer))
    return {
        f"{command}: s": ended - began,
        f"{command}: CPU s": peer.cpu_seconds_ever() - cpu,
    }


def state(peer: Vswap) -> Figures:
    """What a device of ours costs now, and what its pages are."""
    stats = peer.stats()
    slots = stats["stored_pages"] + stats["same_pages"]
    maps = stats["table_bytes"] + stats["zeromap_bytes"]
    return {
        **sizes(stats),
        "table and zeromap, bytes per used slot": maps / slots,
        "pages cold": stats["cold_pages"] / stats["stored_pages"],
        "dead, MiB": stats["dead_bytes"] / MIB,
        "segments ready": stats["segments_ready"],
    }


def of_nothing(peer: Vswap) -> Figures:
    """What a device costs that holds nothing."""
    stats, pss = peer.stats(), peer.pss()
    maps = stats["mem_used_total"] - stats["segment_bytes"] - stats["buffer_bytes"]
    return {
        "header, table, zeromap, words, KiB": maps / 1024,
        "receive buffers, KiB": stats["buffer_bytes"] / 1024,
        "segments kept ready or open, KiB": stats["segment_bytes"] / 1024,
        "the daemon's PSS, KiB": pss["Pss"] / 1024,
        "the daemon's PSS without the above, KiB": (pss["Pss"] - pss["Pss_Shmem"]) / 1024,
    }


def compare(rounds: int, mib: int, with_settings: dict[str, object]) -> dict[str, list[Figures]]:
    """zram, then ours, in every round; without zram where there is none."""
    corpus_file, size = source(mib), mib * MIB
    results: dict[str, list[Figures]] = defaultdict(list)
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        with vswap(size + size // 4, **with_settings) as peer:
            written, cleaned = of_vswap(peer, corpus_file, size)
        results[WRITTEN].append(written)
        results[CLEANED].append(cleaned)
        try:
            results[ZRAM].append(of_zram(corpus_file, size))
        except PeerError as error:
            print(f"bench: zram is left out: {error}", file=sys.stderr)
    return results


def main() -> int:
    parser = common(__doc__, rounds=1)
    parser.add_argument("--mib", type=int, metavar="N", help="size of the corpus (256 or 1024)")
    arguments = parser.parse_args()
    if not need_root():
        return 2
    mib = arguments.mib or default_mib()
    results = compare(arguments.rounds, mib, settings(arguments.set))
    with vswap(EMPTY_SIZE, **settings(arguments.set)) as peer:
        empty = {"empty": [of_nothing(peer)]}
    save(arguments.json, {**results, **empty})
    show(f"{mib} MiB of process memory", results, AIMS, base=ZRAM)
    show(f"an empty device of {EMPTY_SIZE >> 30} GiB", empty, EMPTY_AIMS)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
