"""The dictionary: tried out on samples, kept if it pays, and then needed for ever."""

from __future__ import annotations

import random
from collections.abc import Callable
from unittest.mock import patch

import pytest
from model.pages import noise, process_memory
from model.stores import StoreMaker, content, state_of

from vswap.codec import ZSTD_DICTIONARY, Zstd, by_number
from vswap.errors import CorruptError
from vswap.geometry import CLUSTER_SLOTS, MAX_UNIT_PAGES, PAGE_SIZE
from vswap.store import Selection, Store
from vswap.store import dictionary as module
from vswap.store.decoder import Decoder
from vswap.store.dictionary import PAYS, REGION_SIZE, Dictionary, Sampler, Trial, try_out
from vswap.store.entry import position_of
from vswap.store.region import Region

UNIT_SIZE = MAX_UNIT_PAGES * PAGE_SIZE


def alike(units: int, seed: int = 0) -> list[bytes]:
    """Units in which the same 300 records come again, each in another order and once each.

    A unit by itself repeats nothing but dots, so that only a dictionary can know the rest.
    """
    makes = random.Random(7)
    records = [makes.randbytes(120).ljust(UNIT_SIZE // 300, b".") for _ in range(300)]
    orders = random.Random(seed)
    made = []
    for _ in range(units):
        orders.shuffle(records)
        made.append(b"".join(records).ljust(UNIT_SIZE, b"."))
    return made


def offer_all(sampler: Sampler, units: list[bytes]) -> None:
    for unit in units:
        sampler.offer(unit)


# --- Sampling -----------------------------------------------------------------------------


def test_samples_come_once_and_when_enough_has_been_seen() -> None:
    sampler = Sampler()
    units = [bytes([i % 256, i // 256]) * (UNIT_SIZE // 2) for i in range(module._FROM)]
    offer_all(sampler, units[:-1])
    assert sampler.take() == []
    sampler.offer(units[-1])
    samples = sampler.take()
    assert len(samples) == len(set(samples)) == module._SAMPLES
    assert set(samples) <= set(units)
    assert sampler.take() == []
    offer_all(sampler, units)
    assert sampler.take() == []


def test_samples_are_from_all_that_was_seen() -> None:
    sampler = Sampler()
    offer_all(sampler, [i.to_bytes(2, "little") * (UNIT_SIZE // 2) for i in range(module._FROM)])
    places = [int.from_bytes(unit[:2], "little") for unit in sampler.take()]
    assert min(places) < module._FROM // 4
    assert max(places) > module._FROM * 3 // 4


def test_smaller_units_are_not_sampled() -> None:
    sampler = Sampler()
    offer_all(sampler, [noise(1)] * (2 * module._FROM))
    assert sampler.take() == []


# --- Trying out ---------------------------------------------------------------------------


def test_what_has_something_in_common_gets_a_dictionary() -> None:
    trial = try_out(alike(module._SAMPLES), 3)
    assert trial.saving >= PAYS
    assert 0 < len(trial.dictionary) < REGION_SIZE
    unit = alike(1, seed=99)[0]
    with_it = Zstd(3, UNIT_SIZE, trial.dictionary)
    assert len(with_it.compress(unit)) < len(Zstd(3, UNIT_SIZE).compress(unit))
    assert bytes(with_it.decompress(with_it.compress(unit), UNIT_SIZE)) == unit


@pytest.mark.parametrize("unit", [noise(MAX_UNIT_PAGES), bytes(UNIT_SIZE)])
def test_what_has_nothing_to_win_gets_none(unit: bytes) -> None:
    trial = try_out([unit] * 4 + [noise(MAX_UNIT_PAGES, i) for i in range(44)], 1)
    assert trial.saving < PAYS
    assert trial.dictionary == b""


# --- Keeping ------------------------------------------------------------------------------


def test_what_was_decided_outlives_the_worker(make_region: Callable[[int], Region]) -> None:
    region = make_region(REGION_SIZE)
    first = Dictionary(region)
    assert first.saving is None
    assert first.codec(1) is None
    trial = try_out(alike(module._SAMPLES), 1)
    first.decide(trial)
    second = Dictionary(region)
    assert (second.content, second.saving) == (trial.dictionary, trial.saving)
    codec, other = first.codec(1), second.codec(6)
    assert codec is not None
    assert other is not None
    unit = alike(1, seed=5)[0]
    assert bytes(other.decompress(codec.compress(unit), UNIT_SIZE)) == unit


def test_deciding_against_one_is_kept_too(make_region: Callable[[int], Region]) -> None:
    region = make_region(REGION_SIZE)
    Dictionary(region).decide(Trial(0.01, b""))
    assert Dictionary(region).saving == 0.01
    assert Dictionary(region).codec(1) is None


# --- In a store ---------------------------------------------------------------------------


def store_with_dictionary(make: StoreMaker) -> Store:
    """A store of two clusters of units alike, all moved down, the later ones with a dictionary."""
    store = make(slots=2 * CLUSTER_SLOTS)
    lane = store.lane()
    for at, unit in enumerate(alike(2 * CLUSTER_SLOTS // MAX_UNIT_PAGES)):
        lane.write(at * UNIT_SIZE, memoryview(unit))
    with patch.object(module, "_FROM", module._SAMPLES):
        assert store.recompress(Selection()) > 0
    return store


def test_a_store_decides_by_itself_and_reads_what_it_made(make: StoreMaker) -> None:
    store = store_with_dictionary(make)
    stats = store.statistics()
    assert stats.dictionary_bytes > 0
    assert stats.dictionary_saving >= PAYS
    slot = 2 * CLUSTER_SLOTS - 1
    position = position_of(store._parts.table.get(slot))
    assert state_of(store).segments.view[position + 7] == ZSTD_DICTIONARY
    for lane in store.lane(), store.lane():
        for at, unit in enumerate(alike(2 * CLUSTER_SLOTS // MAX_UNIT_PAGES)):
            assert content(lane, at * UNIT_SIZE, UNIT_SIZE) == unit


def test_without_the_dictionary_a_unit_made_with_it_is_an_error(make: StoreMaker) -> None:
    store = store_with_dictionary(make)
    slot = 2 * CLUSTER_SLOTS - 1
    decoder = Decoder(state_of(store).segments.view, by_number())
    with pytest.raises(CorruptError, match="unknown codec, 3"):
        decoder.unit(store._parts.table.get(slot), slot)


def test_real_memory_is_decided_on(make: StoreMaker) -> None:
    """Whatever comes of it, all is readable."""
    store = make(slots=4 * CLUSTER_SLOTS)
    lane = store.lane()
    data = process_memory(2 * CLUSTER_SLOTS)
    lane.write(0, memoryview(data))
    with patch.object(module, "_FROM", 16), patch.object(module, "_SAMPLES", 24):
        store.recompress(Selection())
    assert store._parts.dictionary.saving is not None
    assert content(lane, 0, len(data)) == data
