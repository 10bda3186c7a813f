"""Warming up: every path of a request is taken once, and nothing is left of it."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from vswap.errors import RequestError
from vswap.geometry import PAGE_SIZE
from vswap.store import Findings, Lane, Policy, Store, StoreStatistics
from vswap.store.words import FillWords
from vswapd.warmup import warm_up


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def mapped_regions() -> int:
    gc.collect()
    return Path("/proc/self/maps").read_text().count("/memfd:vswap-")


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


class Calls:
    """What was asked of lanes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.writes: set[int] = set()
        self.reads: set[int] = set()
        self.others: set[str] = set()
        self.refused = 0
        self._spy(monkeypatch, "write", lambda offset, data: self.writes.add(len(data)))
        self._spy(monkeypatch, "read", lambda offset, size: self.reads.add(size))
        for name in ("discard", "seek"):
            self._spy(monkeypatch, name, lambda *_args, name=name: self.others.add(name))

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
