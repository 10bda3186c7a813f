"""The pause of a takeover: how long a reader waits when the worker is killed.

    sudo ./vswap.sh bench takeover [--kills N] [--size SIZE] [--seconds S] [--rewritten SHARE]
                                   [--rounds N] [--json FILE]

A device is filled with process memory, and single pages of it are read in random order, one after
the other, each compared with what was written. Again and again, when everything is at rest and a
standby waits, the worker is killed. The pause is the longest that a read took from one kill to the
next; its parts are told by what is to be seen from outside:

    killed -> ended           the kernel takes the worker apart; the supervisor waits for that. It
                              takes the longer the more of the device the worker has mapped
    ended -> told             the supervisor has the standby serve
    told -> data threads      the standby counts what the state holds, and answers what was left
    data threads -> reply     the first that the reader gets

`a later read` has waited for no takeover, but for a processor, or for what the worker does beside.

A page that is wrong makes the exit status 1.
"""

from __future__ import annotations

import math
import mmap
import multiprocessing
import os
import random
import select
import signal
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from bench.measure import MIB, source
from bench.options import common, guarded, need_root, settings
from bench.peers import PeerError, Vswap, vswap
from bench.report import Aim, Figures, save, show
from vswap.geometry import PAGE_SIZE
from vswapd.config import parse_size

__all__ = ["Kill", "figures", "fill", "percentile"]

WORKER, STANDBY = "vswap-worker", "vswap-standby"
BLOCK = MIB
REST_SECONDS = 0.1
PATIENCE_SECONDS = 30.0
LOOK_SECONDS = 0.0002
JOIN_SECONDS = 60.0

AIMS = {
    "pause, median: ms": Aim(50, at_most=True),
    "pause, p99: ms": Aim(200, at_most=True),
    "pages that are wrong": Aim(0, at_most=True),
    "reads that failed": Aim(0, at_most=True),
}

Numbers = npt.NDArray[np.int64]
Sums = npt.NDArray[np.uint64]


# ---- the device's content ----------------------------------------------------------------


def fill(device: str, corpus_file: Path, size: int, rewritten: float = 0.0) -> Sums:
    """Write `size` bytes of the corpus, each page with its number in it; their checksums.

    Then so large a share of the pages is written anew, one by one: that leaves the small units and
    the mixed clusters of a device that has been in use for a while.
    """
    corpus = np.fromfile(corpus_file, np.uint64).reshape(-1, PAGE_SIZE // 8)
    sums: Sums = np.zeros(size // PAGE_SIZE, np.uint64)
    at_once, choice = BLOCK // PAGE_SIZE, random.Random(1)
    with _opened(device, os.O_WRONLY) as (handle, buffer):
        for number in range(0, len(sums), at_once):
            count = min(at_once, len(sums) - number)
            pages = corpus[np.arange(number, number + count) % len(corpus)]
            sums[number : number + count] = _write(handle, buffer, number, pages)
        for number in choice.sample(range(len(sums)), int(len(sums) * rewritten)):
            pages = corpus[[choice.randrange(len(corpus))]]
            sums[number] = _write(handle, buffer, number, pages)[0]
    return sums


def _write(handle: int, buffer: mmap.mmap, number: int, pages: npt.NDArray[np.uint64]) -> list[int]:
    """Write pages from that number on, with their numbers in them; their checksums."""
    pages[:, 0] = np.arange(number, number + len(pages))
    buffer[: pages.nbytes] = pages.tobytes()
    done = os.pwritev(handle, [memoryview(buffer)[: pages.nbytes]], number * PAGE_SIZE)
    if done != pages.nbytes:
        raise PeerError(f"{done} bytes of {pages.nbytes} were written at page {number}")
    return [xxhash.xxh3_64_intdigest(page) for page in pages]


@contextmanager
def _opened(device: str, access: int) -> Iterator[tuple[int, mmap.mmap]]:
    """A device past the page cache, and memory that may be read into."""
    handle = os.open(device, access | os.O_DIRECT | os.O_CLOEXEC)
    try:
        yield handle, mmap.mmap(-1, BLOCK)
    finally:
        os.close(handle)


# ---- the reader ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Reads:
    """When each read ended and how long it took, in nanoseconds; and what was not as it should."""

    ended: Numbers
    took: Numbers
    wrong: int
    failed: int


def _read_on(device: str, sums: Sums, stop: Event, results: Connection) -> None:
    """Read pages until told to stop. In a process of its own: nothing else must delay it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    choice = np.random.default_rng(1)
    ended: list[int] = []
    took: list[int] = []
    wrong = failed = 0
    now, hashed = time.perf_counter_ns, xxhash.xxh3_64_intdigest
    with _opened(device, os.O_RDONLY) as (handle, buffer):
        page = memoryview(buffer)[:PAGE_SIZE]
        into = [page]
        while not ended or not stop.is_set():
            if not ended:
                results.send(None)  # it begins
            for number in choice.integers(len(sums), size=64).tolist():
                began = now()
                try:
                    done = os.preadv(handle, into, number * PAGE_SIZE)
                except OSError:
                    done = 0
                after = now()
                ended.append(after)
                took.append(after - began)
                if done != PAGE_SIZE:
                    failed += 1
                elif hashed(page) != sums[number]:
                    wrong += 1
        del page, into
    results.send(Reads(np.array(ended, np.int64), np.array(took, np.int64), wrong, failed))


@contextmanager
def reading(device: str, sums: Sums) -> Iterator[Callable[[], Reads]]:
    """Read while the block runs; what is given ends that, and answers what was seen.

    Raises `PeerError` if the reader dies.
    """
    context = multiprocessing.get_context("spawn")
    stop, (ours, theirs) = context.Event(), context.Pipe(duplex=False)
    process = context.Process(target=_read_on, args=(device, sums, stop, theirs), daemon=True)
    process.start()
    theirs.close()

    def heard() -> Reads | None:
        with suppress(EOFError):
            if ours.poll(JOIN_SECONDS):
                said: Reads | None = ours.recv()
                return said
        raise PeerError("the reader has died, or hangs")

    def end() -> Reads:
        stop.set()
        reads = heard()
        assert reads is not None
        return reads

    try:
        heard()
        yield end
    finally:
        stop.set()
        process.join(JOIN_SECONDS)
        process.kill()


# ---- the killer ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Kill:
    """When a worker was killed, and what was seen then, in nanoseconds of `perf_counter_ns`.

    `mapped` is how much shared memory it had mapped, in bytes: the state's.
    """

    mapped: int
    killed: int
    ended: int
    told: int
    threads: int


def _children(supervisor: int, name: str) -> list[int]:
    """The supervisor's children of that name, without those that have ended."""
    found = []
    for task in Path(f"/proc/{supervisor}/task").iterdir():
        for child in (task / "children").read_text().split():
            with suppress(OSError):
                before, _, after = Path(f"/proc/{child}/stat").read_text().rpartition(")")
                if before.partition("(")[2] == name and after.split()[0] != "Z":
                    found.append(int(child))
    return found


def _at_rest(supervisor: int) -> tuple[int, int]:
    """Wait until a worker serves and a standby has nothing more to prepare; both."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    before = None
    while time.monotonic() < deadline:
        workers, standbys = _children(supervisor, WORKER), _children(supervisor, STANDBY)
        now = None
        if workers and standbys:
            with suppress(OSError):
                spent = Path(f"/proc/{standbys[0]}/schedstat").read_text().split()[0]
                now = workers[0], standbys[0], spent
        if now is not None and now == before:
            return now[:2]
        before = now
        time.sleep(REST_SECONDS)
    raise PeerError(f"no standby waits after {PATIENCE_SECONDS:.0f} s")


def kill_one(supervisor: int, seconds: float) -> Kill:
    """Kill the worker when a standby has been waiting for so long, and watch what follows."""
    _at_rest(supervisor)
    time.sleep(seconds)
    worker, standby = _at_rest(supervisor)
    now, tasks = time.perf_counter_ns, Path(f"/proc/{standby}/task")
    before = tasks.stat().st_nlink
    pidfd, comm = os.pidfd_open(worker), os.open(f"/proc/{standby}/comm", os.O_RDONLY)
    try:
        mapped = _mapped(worker)
        killed = now()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(PATIENCE_SECONDS * 1000)
        ended = now()
        told = _when(lambda: os.pread(comm, 32, 0).strip() == WORKER.encode())
        threads = _when(lambda: tasks.stat().st_nlink > before)
    finally:
        os.close(pidfd)
        os.close(comm)
    return Kill(mapped, killed, ended, told, threads)


def _mapped(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("RssShmem:"))
    return int(kib) << 10


def _when(happens: Callable[[], bool]) -> int:
    """Wait for something; when it was so."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not happens():
        if time.monotonic() > deadline:
            raise PeerError(f"no standby takes over within {PATIENCE_SECONDS:.0f} s")
        time.sleep(LOOK_SECONDS)
    return time.perf_counter_ns()


# ---- figures -------------------------------------------------------------------------------


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that so many percent of them do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def figures(reads: Reads, kills: Sequence[Kill]) -> Figures:
    """What the reader saw of the kills. Before the first it saw none."""
    spans = [*(kill.killed for kill in kills), np.iinfo(np.int64).max]
    pauses, replies, later = [], [], []
    usual = reads.took[reads.ended < spans[0]]
    for kill, until in zip(kills, spans[1:], strict=False):
        within = np.flatnonzero((reads.ended >= kill.killed) & (reads.ended < until))
        if not len(within) or reads.ended[within[-1]] < kill.told:
            raise PeerError("a worker was killed, and then nothing was read")
        pauses.append(int(reads.took[within].max()) / 1e6)
        # Of the reads that end when the standby has been told, one waited for that.
        after = within[reads.ended[within] >= kill.told]
        replies.append(int(reads.ended[after[0]]))
        later.append(int(reads.took[after[1:]].max(initial=0)) / 1e6)
    parts = {
        "killed -> ended": [kill.ended - kill.killed for kill in kills],
        "ended -> told": [kill.told - kill.ended for kill in kills],
        "told -> data threads": [kill.threads - kill.told for kill in kills],
        "data threads -> reply": [
            reply - kill.threads for reply, kill in zip(replies, kills, strict=True)
        ],
    }
    return {
        "kills": len(kills),
        "pause, median: ms": statistics.median(pauses),
        "pause, p99: ms": percentile(pauses, 99),
        "pause, most: ms": max(pauses),
        **{f"{name}, median: ms": statistics.median(took) / 1e6 for name, took in parts.items()},
        **{f"{name}, most: ms": max(took) / 1e6 for name, took in parts.items()},
        "a later read, most: ms": max(later),
        "mapped when killed, median: MiB": statistics.median(kill.mapped for kill in kills) / MIB,
        "usual read, median: ms": float(np.median(usual)) / 1e6,
        "usual read, p99: ms": float(np.percentile(usual, 99)) / 1e6,
        "usual read, most: ms": float(usual.max()) / 1e6,
        "reads": len(reads.took),
        "pages that are wrong": reads.wrong,
        "reads that failed": reads.failed,
    }


@dataclass(frozen=True)
class Plan:
    """A device and how often its worker is killed, `seconds` after a standby has come to rest."""

    size: int
    rewritten: float
    kills: int
    seconds: float
    before: float


def measure(peer: Vswap, corpus_file: Path, plan: Plan) -> tuple[Figures, list[Kill]]:
    """Fill a device, and kill its worker while it is read."""
    sums = fill(peer.device, corpus_file, plan.size, plan.rewritten)
    supervisor = peer.pids[0]
    with reading(peer.device, sums) as end:
        _at_rest(supervisor)
        time.sleep(plan.before)
        kills = []
        for number in range(plan.kills):
            kills.append(kill_one(supervisor, plan.seconds))
            if (number + 1) % 10 == 0:
                print(f"killed {number + 1} of {plan.kills}", file=sys.stderr)
        time.sleep(plan.seconds)
        reads = end()
    stats = peer.stats()
    return {
        **figures(reads, kills),
        "stored pages": stats["stored_pages"],
        "mem_used_total, MiB": stats["mem_used_total"] / MIB,
        "worker restarts": stats["worker_restarts"],
    }, kills


def main() -> int:
    parser = common(__doc__, rounds=1)
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="(50)")
    parser.add_argument("--size", type=parse_size, default=4 << 30, help="of the device (4G)")
    parser.add_argument(
        "--seconds", type=float, default=3.0, metavar="S", help="from a standby to a kill (3)"
    )
    parser.add_argument(
        "--rewritten",
        type=float,
        default=0.1,
        metavar="SHARE",
        help="of the pages, one by one, after the device was filled (0.1)",
    )
    parser.add_argument(
        "--before", type=float, default=3.0, metavar="S", help="read before the first kill (3)"
    )
    arguments = parser.parse_args()
    if not need_root():
        return 2
    plan = Plan(
        arguments.size,
        arguments.rewritten,
        arguments.kills,
        arguments.seconds,
        arguments.before,
    )
    corpus_file, rounds, seen = source(), [], []
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        with vswap(plan.size, **settings(arguments.set)) as peer:
            found, kills = measure(peer, corpus_file, plan)
        rounds.append(found)
        seen.append([asdict(kill) for kill in kills])
    save(arguments.json, {"takeover": rounds, "kills": seen})
    show(
        f"takeover, {plan.size >> 20} MiB",
        {"takeover": rounds},
        {"takeover": AIMS},
    )
    return int(any(run["pages that are wrong"] or run["reads that failed"] for run in rounds))


if __name__ == "__main__":
    sys.exit(guarded(main))
