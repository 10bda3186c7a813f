"""The history's memory: what is found there again, and what a worker of other code does."""

from __future__ import annotations

import os

import pytest

from vswapd.control import Rings
from vswapd.control import rings as module
from vswapd.control.rings import SAMPLE, SPANS, Span

ROW = (0,) * len(SAMPLE.names or ())


def again(rings: Rings) -> Rings:
    """What the next worker makes of it."""
    return Rings.of(os.dup(rings.fd))


def note(rings: Rings, *times: int) -> None:
    for time in times:
        rings.samples[0].append((time, *ROW[1:]))


def times(rings: Rings) -> list[int]:
    return [int(time) for time in rings.samples[0].copy()["time"]]


def test_what_was_noted_is_found_again(rings: Rings) -> None:
    rings.began = 7
    note(rings, 5, 6)
    rings.takeovers.append((6, 1, b"0.7"))
    found = again(rings)
    assert (rings.is_new, found.is_new) == (True, False)
    assert (found.began, times(found), found.samples[0].latest) == (7, [5, 6], 6)
    assert found.takeovers.copy().tolist() == [(6, 1, b"0.7")]
    assert (found.samples[1].copy().size, found.samples[1].latest) == (0, None)
    found.close()


def test_the_newest_are_seen(rings: Rings) -> None:
    count = SPANS[0].samples
    note(rings, *range(3 * count + 5))
    assert times(rings) == list(range(2 * count + 5, 3 * count + 5))


def test_a_row_that_was_not_finished_is_not_seen(rings: Rings) -> None:
    """Its worker was killed: all others are whole, the oldest of them too."""
    count = SPANS[0].samples
    note(rings, *range(count + 7))
    ring = rings.samples[0]
    ring._rows[(count + 7) % len(ring._rows)] = (999, *ROW[1:])
    assert times(rings) == list(range(7, count + 7))


def test_no_memory_of_another_layout_is_believed(
    rings: Rings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its length nor what its rows are."""
    note(rings, 5)
    fd = os.dup(rings.fd)
    monkeypatch.setattr(module, "SPANS", (Span(20, 360), SPANS[1]))
    found = Rings.of(fd)
    assert (found.is_new, times(found)) == (True, [])
    assert not os.path.sameopenfile(found.fd, rings.fd)
    found.close()


@pytest.mark.parametrize("size", [0, 8, 4096, 1 << 20])
def test_nor_is_any_other(size: int) -> None:
    fd = os.memfd_create("vswap-test")
    os.ftruncate(fd, size)
    found = Rings.of(fd)
    assert found.is_new
    found.close()


def test_without_any_it_begins_anew() -> None:
    found = Rings.of(None)
    assert (found.is_new, found.began, times(found)) == (True, 0, [])
    found.close()
