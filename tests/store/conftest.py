"""Stores and regions that are looked through, and closed, when a test is over."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from model.audit import audit
from model.logs import Harness
from model.stores import DEFAULT_SLOTS, StoreMaker, make_store, state_of

from vswap.store import Lane, Policy, Store
from vswap.store.region import Region


@pytest.fixture
def make() -> Iterator[StoreMaker]:
    """Makes stores. Each must pass the audit when the test ends."""
    made: list[Store] = []

    def maker(
        policy: Policy = Policy(),  # noqa: B008 (frozen)
        *,
        slots: int = DEFAULT_SLOTS,
        segments: int | None = None,
        wake: Callable[[], None] = lambda: None,
    ) -> Store:
        store = make_store(policy, slots=slots, segments=segments, wake=wake)
        made.append(store)
        return store

    yield maker
    for store in made:
        try:
            assert audit(store) == []
        finally:
            state_of(store).close()


@pytest.fixture
def store(make: StoreMaker) -> Store:
    """A store of the usual kind."""
    return make()


@pytest.fixture
def lane(store: Store) -> Lane:
    """A lane of `store`."""
    return store.lane()


@pytest.fixture
def make_region() -> Iterator[Callable[[int], Region]]:
    """Makes regions of as many bytes as asked for."""
    made: list[Region] = []

    def maker(size: int) -> Region:
        made.append(Region.create("test", size))
        return made[-1]

    yield maker
    for region in made:
        region.close()


@pytest.fixture
def make_log() -> Iterator[Callable[..., Harness]]:
    """Makes logs of so many segments, with a reserve and a limit."""
    made: list[Harness] = []

    def maker(segments: int = 4, reserve: int = 0, limit: int | None = None) -> Harness:
        made.append(Harness(segments, reserve, limit))
        return made[-1]

    yield maker
    for harness in made:
        harness.region.close()
