"""Histograms as values; how requests are noted in them is in channel/test_latency.py."""

from __future__ import annotations

from vswapd.histogram import BUCKETS, Histogram


def test_what_came_since_is_a_histogram_of_its_own() -> None:
    before = Histogram((1, 2, 3), 100)
    assert Histogram((1, 5, 3), 250).since(before) == Histogram((0, 3, 0), 150)


def test_one_may_have_more_buckets_than_the_other() -> None:
    """Those behind the last in use may be left out."""
    assert Histogram((1, 2, 3)).since(Histogram((1,))).counts == (0, 2, 3)
    assert Histogram((1,)).since(Histogram((1, 0, 0))).counts == (0, 0, 0)


def test_what_is_used_ends_with_the_last_that_counts() -> None:
    assert Histogram((0, 4, 0) + (0,) * (BUCKETS - 3)).used == (0, 4)
    assert Histogram().used == ()
