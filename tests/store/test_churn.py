"""A device in use: overwrites, discards and reads in random order, with upkeep in between.

One thread does all of it, in an order that a seed decides, and time goes as it is told.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import pytest
from model.moves import Clock, new_clock, put
from model.pages import filled, noise, stamped, text, zero
from model.stores import StoreMaker, content, limit_of

from vswap.errors import FullError
from vswap.geometry import PAGE_SIZE, SEGMENT_SIZE
from vswap.store import Lane, Policy, Store

SLOTS = (32 << 20) // PAGE_SIZE
IN_USE = 0.7
REQUESTS = 4000
RUNS = (1, 1, 1, 2, 4, 8, 16)
"""Pages of one request; the smaller the more often."""


@dataclass
class Source:
    """Pages of all sorts, as a machine has them; `poor` is the share that does not compress."""

    chance: random.Random
    poor: float

    def pages(self, count: int) -> bytes:
        return b"".join(self._page() for _ in range(count))

    def _page(self) -> bytes:
        kind, seed = self.chance.random(), self.chance.randrange(100)
        if kind < self.poor:
            return noise(1, seed) if kind < self.poor / 2 else self.chance.randbytes(PAGE_SIZE)
        if kind < self.poor + 0.05:
            return filled(1, seed % 7)
        if kind < self.poor + 0.1:
            return zero()
        if kind < self.poor + 0.3:
            return text(1, seed)
        if kind < self.poor + 0.5:
            return stamped("half", (seed, self.chance.randrange(1000), 0))
        some = self.chance.randrange(256, PAGE_SIZE)  # a page with a part of it in use
        return text(1, seed)[:some] + bytes(PAGE_SIZE - some)


class Churn:
    """A store, what should be in it, and who does things to it."""

    def __init__(self, store: Store, clock: Clock, limit: int, poor: float) -> None:
        self.store = store
        self.clock = clock
        self.limit = limit
        self.lane: Lane = store.lane()
        self.chance = random.Random(4711)
        self.source = Source(self.chance, poor)
        self.pages: dict[int, bytes] = {}

    def write(self, slot: int, count: int) -> None:
        data = self.source.pages(count)
        put(self.lane, slot, data)
        for at in range(count):
            self.pages[slot + at] = data[at * PAGE_SIZE : (at + 1) * PAGE_SIZE]

    def discard(self, slot: int, count: int) -> None:
        self.lane.discard(slot * PAGE_SIZE, count * PAGE_SIZE)
        for at in range(slot, slot + count):
            self.pages.pop(at, None)

    def check(self, slot: int, count: int) -> None:
        right = b"".join(self.pages.get(at, zero()) for at in range(slot, slot + count))
        assert content(self.lane, slot * PAGE_SIZE, count * PAGE_SIZE) == right

    def check_all(self) -> None:
        for slot in range(0, SLOTS, 64):
            self.check(slot, 64)

    def fill(self, share: float) -> None:
        for slot in range(0, int(SLOTS * share), 16):
            self.write(slot, 16)

    def request(self, share: float) -> None:
        """One of the requests of a device that is filled to about this share."""
        count = self.chance.choice(RUNS)
        slot = self.chance.randrange(SLOTS - count)
        kind = self.chance.random()
        if kind < 0.25:
            self.check(slot, count)
        elif len(self.pages) > SLOTS * share or kind < 0.3:
            self.discard(slot, 3 * count if slot + 3 * count < SLOTS else count)
        else:
            self.write(slot, count)

    def background(self) -> None:
        """What the background would do in a few milliseconds."""
        self.clock.advance(0.02)
        self.store.maintain()
        self.store.step()

    def rest(self) -> None:
        """Nothing is asked for until there is nothing to do."""
        for _ in range(5000):
            self.clock.advance(1)
            if self.store.step() == 2.0:
                return
        raise AssertionError("the background does not come to rest")

    def assert_within_limit(self) -> None:
        assert self.store.statistics().mem_used_total <= self.limit


def churn(make: StoreMaker, monkeypatch: pytest.MonkeyPatch, segments: int, poor: float) -> Churn:
    clock = new_clock(monkeypatch)
    limit = limit_of(segments, SLOTS)
    store = make(Policy(memory_limit=limit, reserve=2), slots=SLOTS, segments=segments)
    return Churn(store, clock, limit, poor)


def test_a_tight_device_goes_on(make: StoreMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    """No write fails, memory stays within its limit, and at rest little of it is dead."""
    device = churn(make, monkeypatch, segments=18, poor=0.3)
    device.fill(IN_USE)
    for turn in range(REQUESTS):
        device.request(IN_USE)
        if turn % 4 == 0:
            device.background()
            device.assert_within_limit()
    device.check_all()
    device.rest()
    device.assert_within_limit()
    at_rest = device.store.statistics()
    assert at_rest.pool_limit_hit == at_rest.failed_writes == at_rest.failed_reads == 0
    assert at_rest.segments_cleaned > 0
    assert at_rest.pages_recompressed > 0
    # Less than a segment in all is not worth it.
    assert at_rest.dead_bytes <= max(SEGMENT_SIZE, 0.03 * at_rest.segment_bytes)
    device.store.compact()
    at_rest = device.store.statistics()
    assert at_rest.dead_bytes <= 0.03 * at_rest.segment_bytes
    assert device.store.check().problems == ()
    device.check_all()


def test_an_overfilled_device_refuses_and_accepts_again(
    make: StoreMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only when there is little left to win; nothing that is stored is touched."""
    device = churn(make, monkeypatch, segments=16, poor=0.8)
    refused = accepted = 0
    full = False
    for turn in range(REQUESTS):
        count = device.chance.choice(RUNS)
        slot = device.chance.randrange(SLOTS - count)
        try:
            device.write(slot, count)
            accepted += full
            full = False
        except FullError:
            refused += 1
            if not full:
                dead = device.store.statistics().dead_bytes
                assert dead <= 3 * SEGMENT_SIZE
            full = True
            device.check(slot, count)
            device.discard(device.chance.randrange(SLOTS - 64), 64)
        if turn % 4 == 0:
            device.background()
            device.assert_within_limit()
    assert refused > 10
    assert accepted > 3
    assert device.store.statistics().pool_limit_hit == refused
    device.check_all()
    assert device.store.check().problems == ()
    device.discard(0, SLOTS // 2)
    device.write(0, 16)
    device.rest()
    device.assert_within_limit()
    device.check_all()
