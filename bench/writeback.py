"""Writing back: that it is right, how fast it is beside zswap, and what taking it away costs.

    sudo ./vswap.sh bench writeback [--only spill zswap drain] [--rounds N] [--json FILE]

spill   a program of 1 GiB in 192 MiB, swapping on a device that may take 128 MiB: every page is
        checked twice, a quarter is written anew in between; and what goes to the disk
zswap   a larger program on ours and on zswap, in turns, with pools of the same size and files of
        the same size on the same disk
drain   taking the backing away, with so many pages on it and with twice as many
"""

from __future__ import annotations

import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

from bench.blocks import large_share, watching_writes
from bench.draining import drain
from bench.hog import Ended, Hog, HogError, run_in, speeds
from bench.measure import MIB, OUT, source
from bench.options import common, guarded, need_root, settings
from bench.peers import Peer, Vswap, swapping, vswap
from bench.peers.catalogue import FUSE_PAGE_CLUSTER, tuned
from bench.peers.kernel_zswap import zswap
from bench.report import Aim, Figures, save, show
from bench.sampler import sampling
from vswap.store.backing_make import make_file

GIB = 1 << 30
SPILL = Hog(mib=1024, limit_mib=192, rewrite=0.25)
SPILL_MEMORY, SPILL_DEVICE, SPILL_BACKING = 128 * MIB, 1536 * MIB, 2 * GIB
LARGE = 256 << 10
SAMPLE_SECONDS = 0.1

POOL_PERCENT = 1  # of the machine's memory: the least that zswap takes as a number
BESIDE_DEVICE = 3 * GIB
BESIDE = replace(SPILL, mib=2048)

DRAINED_PAGES = (100_000, 200_000)

SPILL_AIMS = {
    "wrong pages": Aim(0, at_most=True),
    "most memory, share of the limit": Aim(1.0, at_most=True),
    "written to disk, of what was moved": Aim(1.3, at_most=True),
    "written in requests of 256 KiB or more, share": Aim(0.95),
}
ZSWAP_AIMS = {
    "in all: pages/s": Aim(1.0, of_ratio=True),
    "written to disk, MiB": Aim(0.5, at_most=True, of_ratio=True),
}
DRAIN_AIMS = {
    "seconds": Aim(2.2, at_most=True, of_ratio=True),
    "clusters visited": Aim(2.2, at_most=True, of_ratio=True),
    "visits for each cluster used": Aim(1.0, at_most=True),
    "reads for each disk segment used": Aim(1.0, at_most=True),
}

Rounds = dict[str, list[Figures]]


@contextmanager
def ours(size: int, backing: int, **own: object) -> Iterator[Vswap]:
    """A device of ours with a backing of so many bytes."""
    with tempfile.TemporaryDirectory(dir=OUT, prefix="backing-") as directory:
        file = Path(directory).resolve() / "file"
        make_file(str(file), backing)
        with vswap(size, backing=str(file), **own) as peer:
            yield replace(peer, page_cluster=FUSE_PAGE_CLUSTER)


def press(peer: Peer, hog: Hog, corpus_file: Path) -> Ended:
    """The hog on a peer, to its end. Raises `HogError` if it comes to none."""
    with swapping(peer), hog.group() as group:
        ended = run_in(group, corpus_file, hog)
    if ended.killed:
        raise HogError("the hog was killed, or took too long")
    return ended


def spill(corpus_file: Path, common_: dict[str, object]) -> Figures:
    """The hog on a device that spills."""
    given = {"memory_limit": SPILL_MEMORY, **common_}

    def memory(peer: Vswap) -> dict[str, int]:
        return {"now": int(peer.stats()["mem_used_total"])}

    with tuned(lambda size: ours(size, SPILL_BACKING, **given), SPILL_DEVICE) as peer:
        assert isinstance(peer, Vswap)
        with (
            watching_writes(peer.pids) as writes,
            sampling(lambda: memory(peer), SAMPLE_SECONDS) as samples,
        ):
            ended = press(peer, SPILL, corpus_file)
        stats = peer.stats()
    most = max(stats["mem_used_max"], samples.most("now"))
    return {
        **speeds(ended.printed),
        "wrong pages": ended.printed["mismatches"],
        "most memory, share of the limit": most / SPILL_MEMORY,
        "moved to disk, MiB": stats["writeback_bytes"] / MIB,
        "written to disk, of what was moved": stats["bd_writes"] * 4096 / stats["writeback_bytes"],
        "written in requests of 256 KiB or more, share": large_share(writes, LARGE),
        "write requests seen": len(writes),
        "failed requests": stats["failed_reads"] + stats["failed_writes"],
    }


def beside_zswap(corpus_file: Path, common_: dict[str, object]) -> Iterator[tuple[str, Figures]]:
    """The hog on ours and on zswap."""
    pool = _memory_bytes() * POOL_PERCENT // 100
    given = {"memory_limit": pool, **common_}
    starts: dict[str, Callable[[], AbstractContextManager[Peer]]] = {
        "vswap": lambda: tuned(lambda size: ours(size, BESIDE_DEVICE, **given), BESIDE_DEVICE),
        "zswap": lambda: tuned(
            lambda size: zswap(size, OUT, pool_percent=POOL_PERCENT), BESIDE_DEVICE
        ),
    }
    for name, start in starts.items():
        with start() as peer:
            before = _disk_written()
            ended = press(peer, BESIDE, corpus_file)
            stats = peer.stats() if isinstance(peer, Vswap) else {}
            own = stats.get("bd_writes", 0) * 4096
            written = own or _disk_written() - before
            yield name, {**speeds(ended.printed), "written to disk, MiB": written / MIB}


def _memory_bytes() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return int(lines[0].split()[1]) << 10


def _disk_written() -> int:
    """Bytes that the kernel has swapped out past zswap: what it wrote to swap devices."""
    fields = dict(line.split() for line in Path("/proc/vmstat").read_text().splitlines())
    return int(fields["pswpout"]) * 4096


def run(
    parts: list[str], rounds: int, corpus_file: Path, common_: dict[str, object]
) -> dict[str, Rounds]:
    """The parts asked for; figures by part and by what was measured."""
    results: dict[str, Rounds] = {part: defaultdict(list) for part in parts}
    for number in range(rounds):
        print(f"round {number + 1} of {rounds}", file=sys.stderr)
        if "spill" in results:
            results["spill"]["vswap"].append(spill(corpus_file, common_))
        if "zswap" in results:
            for name, figures in beside_zswap(corpus_file, common_):
                results["zswap"][name].append(figures)
        if "drain" in results:
            for pages in DRAINED_PAGES:
                with ours(GIB, SPILL_BACKING, **common_) as peer:
                    results["drain"][f"{pages} pages"].append(drain(peer, corpus_file, pages))
    return results


def main() -> int:
    parser = common(__doc__, rounds=3)
    choices = ["spill", "zswap", "drain"]
    parser.add_argument("--only", nargs="+", choices=choices, default=choices, metavar="PART")
    arguments = parser.parse_args()
    if not need_root():
        return 2
    results = run(arguments.only, arguments.rounds, source(), settings(arguments.set))
    save(
        arguments.json,
        {f"{part}, {name}": of for part, by in results.items() for name, of in by.items()},
    )
    if "spill" in results:
        show(
            "a hog of 1 GiB in 192 MiB, 128 MiB of memory", results["spill"], {"vswap": SPILL_AIMS}
        )
    if "zswap" in results:
        title = f"a hog of {BESIDE.mib} MiB, pools of {POOL_PERCENT} % of memory"
        show(title, results["zswap"], {"vswap": ZSWAP_AIMS}, base="zswap")
    if "drain" in results:
        few, many = (f"{pages} pages" for pages in DRAINED_PAGES)
        show("taking the backing away", results["drain"], {many: DRAIN_AIMS}, base=few)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
