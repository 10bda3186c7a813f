"""Each sort of work, with fakes for the programs, the cgroup and the swap."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from bench.aims import AIMS
from bench.hog import Ended, Hog, HogError, judged
from bench.peers import Peer, PeerError, Stored, Vswap
from bench.report import Figures
from bench.shown import SHOWN
from bench.work import PLAN, ending, hogging, in_memory, processor, requests, works
from bench.work.processor import Moment, moment
from vswapd.swapdev import SwapArea

MIB = 1 << 20
CORPUS = Path("corpus")
STORE = Peer("store", "/dev/store", True, (), None)
PRINTED = {
    "user_seconds": 1.5,
    "mismatches": 0,
    "phases": [
        {"phase": "fill", "pages": 100, "seconds": 1.5, "source_seconds": 0.5},
        {"phase": "verify 1", "pages": 100, "seconds": 1.0, "source_seconds": 0.0},
    ],
}


@dataclass(frozen=True)
class Store(Vswap):
    """A device of ours that becomes smaller with every command."""

    given: list[str] = field(default_factory=list, kw_only=True)

    def stored(self) -> Stored:
        return Stored(1000, 1_000_000 >> len(self.given), (40 + 10 * len(self.given)) * MIB)

    def command(self, line: str) -> str:
        self.given.append(line)
        return ""


def a_store() -> Store:
    return Store("vswap", "/dev/store", True, (), None, mount=Path("/run"))


# ---- requests ------------------------------------------------------------------------------


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every request program that is run, in a word or two."""
    ran: list[str] = []

    def load(device: str, source: Path, size: int, streams: int) -> dict[str, Any]:
        ran.append(f"load {size >> 20} {streams}")
        return {"mb_per_second": 100.0}

    def read(peer: Peer, depth: int, seconds: float, region: int) -> Figures:
        ran.append(f"read {depth}")
        start = f"4K read, depth {depth}"
        return {f"{start}: mean us": 1.0, f"{start}: p99 us": 2.0, f"{start}: reads/s": 3.0}

    def run_json(*argv: str) -> dict[str, Any]:
        options = dict(zip(argv[1::2], argv[2::2], strict=False))
        ran.append(" ".join(options[name] for name in ("--rw", "--block", "--streams")))
        return {"mb_per_second": 7.0, "iops": 8.0, "latency_us": {"mean": 9.0, "p99": 10.0}}

    monkeypatch.setattr(requests, "load", load)
    monkeypatch.setattr(requests, "read_4k", read)
    monkeypatch.setattr(requests, "run_json", run_json)
    monkeypatch.setattr(requests, "build", lambda name, out: out / name)
    return ran


def test_a_device_is_filled_before_it_is_read(programs: list[str]) -> None:
    peer = a_store()
    found = requests.make_requests(peer, CORPUS, PLAN)
    size = f"load {PLAN.requests_mib} 2"
    reads = ["read 1", "read 16", "read 128K 2", "read 1M 2"]
    writes = ["randwrite 4K 1", "randwrite 4K 16", "write 1M 2"]
    assert programs == [size, *reads, *writes, size]
    assert peer.given == ["recompress", "compact"]
    assert (found["bytes per page"], found["moved down, bytes per page"]) == (1000.0, 250.0)
    assert found["beside the pool: MiB"] == 60.0
    assert found["4K write, depth 16: writes/s"] == 8.0


def test_a_peer_that_cannot_say_has_no_memory(programs: list[str]) -> None:
    found = requests.make_requests(STORE, CORPUS, PLAN)
    assert not [name for name in found if "page" in name or "beside" in name]


def test_a_swap_file_is_never_written_to(programs: list[str]) -> None:
    with pytest.raises(PeerError, match="not a block device of its own"):
        requests.make_requests(Peer("file", "/swap", False, (), None), CORPUS, PLAN)
    assert programs == []


# ---- the hog -------------------------------------------------------------------------------


@dataclass
class Group:
    """A cgroup that only remembers its limit."""

    limit: int = 0
    killed: int = 0

    def set_limit(self, limit: int) -> None:
        self.limit = limit

    def oom_kills(self) -> int:
        return self.killed


@dataclass
class Swap:
    """Swap that ends at once, but not in no time, if nothing hinders it."""

    group: Group
    limit_then: int = 0
    ended: list[bool] = field(default_factory=list)

    def off(self, *, ahead: bool) -> float:
        self.limit_then = self.group.limit
        self.ended.append(ahead)
        return 2.0 if ahead else 5.0


@pytest.fixture
def swap(monkeypatch: pytest.MonkeyPatch) -> Swap:
    """What the work swaps on, and in which cgroup."""
    made = Swap(Group())

    def swapping(peer: Peer) -> AbstractContextManager[Swap]:
        return nullcontext(made)

    monkeypatch.setattr(hogging, "swapping", swapping)
    monkeypatch.setattr(ending, "swapping", swapping)
    monkeypatch.setattr(Hog, "group", lambda hog: nullcontext(made.group))
    return made


def hogged(monkeypatch: pytest.MonkeyPatch, ended: Ended, used: Moment) -> Figures:
    moments = iter([Moment(0.0, 0.0, 0), used])
    monkeypatch.setattr(hogging, "moment", lambda peer: next(moments))
    monkeypatch.setattr(hogging, "run_in", lambda group, source, hog: ended)
    return hogging.press_memory(STORE, CORPUS, Hog("random"))


def test_the_hogs_own_time_is_taken_off(monkeypatch: pytest.MonkeyPatch, swap: Swap) -> None:
    found = hogged(monkeypatch, Ended(PRINTED, killed=False), Moment(10.0, 3.0, 2 << 30))
    assert found["hog, random, CPU: s/GiB"] == (10.0 - 1.5 - 0.5) / 2
    assert found["hog, random, CPU of the serving processes: s/GiB"] == 1.5
    assert found["hog, random, in all: pages/s"] == 100.0


def test_a_hog_that_did_not_finish_has_no_figures(
    monkeypatch: pytest.MonkeyPatch, swap: Swap
) -> None:
    with pytest.raises(HogError, match="killed"):
        hogged(monkeypatch, Ended({}, killed=True), Moment(1.0, 0.0, 1))
    with pytest.raises(HogError, match="did not have to swap"):
        hogged(monkeypatch, Ended(PRINTED, killed=False), Moment(1.0, 0.0, 0))
    swap.group.killed = 1
    with pytest.raises(HogError, match="for want of memory"):
        hogged(monkeypatch, Ended({}, killed=True), Moment(1.0, 0.0, 1))


def test_a_wrong_page_is_an_error() -> None:
    def done(code: int, output: str) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(["hog"], code, output, "page 3 is stale")

    assert judged(done(0, 'filled\n{"mismatches": 0}\n'), killed=False).printed == {"mismatches": 0}
    assert judged(done(-9, "filled\n"), killed=True).killed
    for code, output in ((1, '{"mismatches": 1}'), (3, "{}"), (0, '{"mismatches": 1}')):
        with pytest.raises(HogError, match="page 3 is stale"):
            judged(done(code, output), killed=False)


# ---- the end of swap -----------------------------------------------------------------------


class Held:
    """A hog that has filled its memory."""

    returncode = 0

    def communicate(self, said: str, timeout: float) -> tuple[str, str]:
        assert said == "\n"
        return '{"mismatches": 0}', ""


def end(
    monkeypatch: pytest.MonkeyPatch,
    missing: int = 0,
    peer: Peer | None = None,
    worthwhile: bool = True,
) -> Figures:
    @contextmanager
    def held(group: Group, source: Path, hog: Hog) -> Iterator[Held]:
        assert hog.hold
        yield Held()

    area = SwapArea("/dev/store", 2000 * MIB, 1000 * MIB, 1)
    monkeypatch.setattr(ending, "_held", held)
    monkeypatch.setattr(ending, "swap_area", lambda device: area)
    monkeypatch.setattr(ending, "room_for_swapoff", lambda area: missing)
    monkeypatch.setattr(ending, "worthwhile", lambda area: worthwhile)
    monkeypatch.setattr(Hog, "command", lambda hog, source: ["hog"])
    return ending.end_swap(peer or a_store(), CORPUS, PLAN.held())


def test_the_limit_is_raised_before_swap_ends(monkeypatch: pytest.MonkeyPatch, swap: Swap) -> None:
    found = end(monkeypatch)
    assert swap.limit_then >= PLAN.held_mib * MIB
    assert found["swapoff, s"] == 2.0
    assert found["swapoff, pages/s"] == 1000 * 256 / 2.0
    assert found["swapoff, bytes per page"] == 1000.0


def test_ours_ends_as_down_does_and_by_swapoff_alone(
    monkeypatch: pytest.MonkeyPatch, swap: Swap
) -> None:
    found = end(monkeypatch)
    assert swap.ended == [True, False]
    assert (found["swapoff, s"], found["swapoff alone, s"]) == (2.0, 5.0)


def test_others_end_by_swapoff_alone(monkeypatch: pytest.MonkeyPatch, swap: Swap) -> None:
    found = end(monkeypatch, peer=STORE)
    assert swap.ended == [False]
    assert found["swapoff, s"] == 5.0
    assert "swapoff alone, s" not in found


def test_where_down_does_not_read_ahead_it_is_not_done_here(
    monkeypatch: pytest.MonkeyPatch, swap: Swap
) -> None:
    end(monkeypatch, worthwhile=False)
    assert swap.ended == [False, False]


def test_swap_does_not_end_without_room(monkeypatch: pytest.MonkeyPatch, swap: Swap) -> None:
    with pytest.raises(PeerError, match="wants 5 MiB more"):
        end(monkeypatch, missing=5 * MIB)
    assert swap.limit_then == 0


def test_a_hog_killed_for_want_of_memory_is_an_error(
    monkeypatch: pytest.MonkeyPatch, swap: Swap
) -> None:
    swap.group.killed = 1
    with pytest.raises(HogError, match="killed"):
        end(monkeypatch)


# ---- what they have in common --------------------------------------------------------------


def test_all_that_is_shown_or_aimed_at_is_measured(
    monkeypatch: pytest.MonkeyPatch, programs: list[str], swap: Swap
) -> None:
    measured = {**requests.make_requests(a_store(), CORPUS, PLAN), **end(monkeypatch)}
    for order in ("seq", "random"):
        found = hogged(monkeypatch, Ended(PRINTED, killed=False), Moment(1.0, 1.0, 1))
        measured |= {name.replace("random", order): value for name, value in found.items()}
    parts = {shown.part for shown in SHOWN.values() if shown.part}
    assert set(SHOWN) | parts | {claim.figure for claim in AIMS} <= set(measured)


def test_work_fits_the_device_that_it_gets() -> None:
    by_name = {work.name: work for work in works(PLAN)}
    assert set(by_name) == {"fio", "hog, seq", "hog, random", "swapoff"}
    assert by_name["swapoff"].size > PLAN.held_mib * MIB
    assert by_name["hog, seq"].size > PLAN.hog_mib * MIB
    assert by_name["fio"].size == PLAN.requests_mib * MIB


def test_a_moment_counts_pages_that_zswap_kept_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "stat").write_text("cpu  100 20 300 9999 50 6 70 8 0 0\ncpu0 1 1\n")
    counts = "pswpin 1\npswpout 10\nzswpin 100\nzswpout 1000\nzswpwb 7\n"
    (tmp_path / "vmstat").write_text(counts)
    monkeypatch.setattr(processor, "_STAT", tmp_path / "stat")
    monkeypatch.setattr(processor, "_VMSTAT", tmp_path / "vmstat")
    monkeypatch.setattr(processor, "_TICKS", 100)
    assert moment(STORE) == Moment(4.96, 0.0, (1 + 10 + 100 + 1000 - 7) * 4096)
    (tmp_path / "vmstat").write_text("pswpin 1\npswpout 10\n")
    assert moment(STORE).swapped == 11 * 4096


def test_the_source_in_memory_is_the_file(tmp_path: Path) -> None:
    (tmp_path / "corpus").write_bytes(bytes(range(256)) * 64)
    with in_memory(tmp_path / "corpus") as copy:
        assert copy.read_bytes() == (tmp_path / "corpus").read_bytes()
    assert not copy.exists()
