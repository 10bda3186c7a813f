"""Warming up: every path of a request is taken once, and nothing is left of it."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from descriptor_support import open_descriptors

from vswap.errors import RequestError
from vswap.geometry import PAGE_SIZE
from vswap.store import FetchLane, Findings, Lane, Policy, Store, StoreStatistics
from vswap.store.backing import MemoryBacking
from vswap.store.words import FillWords
from vswapd.warmup import steps, warm_up, warm_up_backing


def mapped_regions() -> int:
    gc.collect()
    return Path("/proc/self/maps").read_text().count("vswap-")


@pytest.mark.parametrize("codec", ["lz4", "zstd-fast", "zstd", "stored"])
@pytest.mark.parametrize("unit_pages", [1, 4, 16])
def test_every_policy_can_be_warmed_up(codec: str, unit_pages: int) -> None:
    warm_up(Policy(codec, unit_pages))


@pytest.mark.parametrize("limit", [1, 8 << 20])
def test_any_memory_limit_is_enough(limit: int) -> None:
    """The scratch device must not fail where the real one would not."""
    warm_up(Policy("stored", 1, memory_limit=limit))


def test_what_random_numbers_are_made_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.urandom", random.Random(1).randbytes)
    warm_up(Policy())


def test_no_descriptor_stays_open() -> None:
    warm_up(Policy())
    gc.collect()
    before = open_descriptors()
    warm_up(Policy())
    gc.collect()
    assert open_descriptors() == before


def test_no_memory_stays_mapped() -> None:
    before = mapped_regions()
    warm_up(Policy())
    assert mapped_regions() == before


def test_it_is_done_in_pieces_that_are_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = Calls(monkeypatch)
    warm_up(Policy())
    whole = (calls.writes, calls.reads, calls.others, calls.refused)
    calls.forget()
    pieces = 0
    for step in steps(Policy()):
        step()
        pieces += 1
    assert (calls.writes, calls.reads, calls.others, calls.refused) == whole
    assert pieces > 4


def test_nothing_is_done_before_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A standby that is to serve has something better to do."""
    calls = Calls(monkeypatch)
    next(steps(Policy()))
    assert (calls.writes, calls.reads) == (set(), set())


@pytest.mark.parametrize("done", [0, 1, 3, 5])
def test_who_leaves_early_leaves_nothing(done: int) -> None:
    warm_up(Policy())
    gc.collect()
    before = open_descriptors(), mapped_regions()
    for number, step in enumerate(steps(Policy())):
        if number == done:
            break
        step()
    del step
    gc.collect()
    assert (open_descriptors(), mapped_regions()) == before


class Calls:
    """What was asked of lanes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.forget()
        self._spy(monkeypatch, "write", lambda offset, data: self.writes.add(len(data)))
        self._spy(monkeypatch, "read", lambda offset, size: self.reads.add(size))
        for name in ("discard", "seek"):
            self._spy(monkeypatch, name, lambda *_args, name=name: self.others.add(name))

    def forget(self) -> None:
        self.writes: set[int] = set()
        self.reads: set[int] = set()
        self.others: set[str] = set()
        self.refused = 0

    def _spy(self, monkeypatch: pytest.MonkeyPatch, name: str, note: Callable[..., None]) -> None:
        real = getattr(Lane, name)

        def call(lane: Lane, *arguments: object) -> object:
            note(*arguments)
            try:
                return real(lane, *arguments)
            except RequestError:
                self.refused += 1
                raise

        monkeypatch.setattr(Lane, name, call)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    made = Calls(monkeypatch)
    warm_up(Policy())
    return made


def test_one_page_many_and_parts_are_written(calls: Calls) -> None:
    assert PAGE_SIZE in calls.writes
    assert max(calls.writes) == 1 << 20
    assert any(size % PAGE_SIZE for size in calls.writes)


def test_one_page_many_and_parts_are_read(calls: Calls) -> None:
    assert PAGE_SIZE in calls.reads
    assert max(calls.reads) == 1 << 20
    assert any(size % PAGE_SIZE for size in calls.reads)


def test_discards_and_seeks_are_made(calls: Calls) -> None:
    assert calls.others == {"discard", "seek"}


def test_a_refusal_is_had(calls: Calls) -> None:
    assert calls.refused


@pytest.mark.parametrize("codec", ["lz4", "zstd-fast", "zstd", "stored"])
def test_what_keeps_a_store_small_is_done(codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[Findings] = []
    said: list[StoreStatistics] = []
    check, statistics = Store.check, Store.statistics

    def check_and_note(store: Store) -> Findings:
        found.append(check(store))
        return found[-1]

    def statistics_and_note(store: Store) -> StoreStatistics:
        said.append(statistics(store))
        return said[-1]

    monkeypatch.setattr(Store, "check", check_and_note)
    monkeypatch.setattr(Store, "statistics", statistics_and_note)
    warm_up(Policy(codec))
    assert [each.problems for each in found] == [()]
    assert found[0].units
    assert said[-1].segments_cleaned
    assert said[-1].pages_compacted
    assert said[-1].pages_recompressed
    assert said[-1].pool_limit_hit


def test_pages_of_one_word_are_written_and_read(monkeypatch: pytest.MonkeyPatch) -> None:
    words: list[bytes] = []
    real = FillWords.word

    def word(self: FillWords, number: int) -> bytes:
        words.append(real(self, number))
        return words[-1]

    monkeypatch.setattr(FillWords, "word", word)
    warm_up(Policy())
    assert words


# --- The backing -----------------------------------------------------------------------


@pytest.mark.parametrize("codec", ["lz4", "zstd-fast", "zstd", "stored"])
@pytest.mark.parametrize("unit_pages", [1, 4, 16])
def test_every_policy_can_be_warmed_up_for_a_backing(codec: str, unit_pages: int) -> None:
    warm_up_backing(Policy(codec, unit_pages))


@pytest.mark.parametrize("limit", [1, 8 << 20])
def test_any_memory_limit_is_enough_for_a_backing(limit: int) -> None:
    warm_up_backing(Policy("stored", 1, memory_limit=limit))


def test_warming_up_for_a_backing_leaves_no_descriptor_and_no_memory() -> None:
    warm_up_backing(Policy())
    gc.collect()
    before = open_descriptors(), mapped_regions()
    warm_up_backing(Policy())
    gc.collect()
    assert (open_descriptors(), mapped_regions()) == before


class BackingCalls:
    """What a backing and those that use it were asked for."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.found: list[Findings] = []
        self.before_the_end: list[StoreStatistics] = []
        for name in ("read", "write", "close"):
            self._spy(monkeypatch, MemoryBacking, name, f"backing {name}")
        for name in ("read", "write"):
            self._spy(monkeypatch, Lane, name, f"lane {name}")
        self._spy(monkeypatch, FetchLane, "finish", "fetch")
        check, close = Store.check, Store.close

        def check_and_note(store: Store) -> Findings:
            self.found.append(check(store))
            return self.found[-1]

        def close_and_note(store: Store) -> None:
            self.before_the_end.append(store.statistics())
            close(store)

        monkeypatch.setattr(Store, "check", check_and_note)
        monkeypatch.setattr(Store, "close", close_and_note)

    def _spy(self, monkeypatch: pytest.MonkeyPatch, kind: type, name: str, note: str) -> None:
        real = getattr(kind, name)

        def call(*arguments: object) -> object:
            self.done.append(note)
            return real(*arguments)

        monkeypatch.setattr(kind, name, call)


@pytest.fixture
def backing_calls(monkeypatch: pytest.MonkeyPatch) -> BackingCalls:
    made = BackingCalls(monkeypatch)
    warm_up_backing(Policy())
    return made


def test_pages_are_written_back_and_read(backing_calls: BackingCalls) -> None:
    """In this order: what is read is on disk then."""
    done = backing_calls.done
    first = done.index("backing write")
    assert "lane write" in done[:first]
    read = done.index("lane read", first)
    assert "backing read" in done[read:]


def test_part_of_a_page_on_disk_is_written(backing_calls: BackingCalls) -> None:
    done = backing_calls.done
    assert "lane write" in done[done.index("backing write") :]


def test_a_store_with_a_backing_is_checked_and_sound(backing_calls: BackingCalls) -> None:
    assert [each.problems for each in backing_calls.found] == [()]
    assert backing_calls.found[0].units


def test_all_pages_come_home_and_the_backing_is_let_go(backing_calls: BackingCalls) -> None:
    (statistics,) = backing_calls.before_the_end
    assert statistics.writeback_pages >= 256
    assert (statistics.detach_result, statistics.backing_state) == ("detached", "none")
    assert statistics.backing_pages == 0
    assert statistics.stored_pages > 0
    assert backing_calls.done.count("backing close") == 1


def test_nothing_fails_while_warming_up_for_a_backing(backing_calls: BackingCalls) -> None:
    (statistics,) = backing_calls.before_the_end
    assert (statistics.failed_reads, statistics.failed_writes) == (0, 0)
    assert (statistics.backing_failed_reads, statistics.backing_failed_writes) == (0, 0)
    assert statistics.backing_corrupt == 0
