"""Figures for a person: one rule for each, whoever shows them."""

from __future__ import annotations

import pytest

from vswapd.figures import duration, human, ratio


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (None, "-"),
        (0, "0"),
        (1023, "1023"),
        (1024, "1.0K"),
        (10 << 10, "10K"),
        (3 << 29, "1.5G"),
        (512 << 20, "512M"),
        (16 << 40, "16T"),
        (5 << 50, "5120T"),
    ],
)
def test_sizes(size: int | None, text: str) -> None:
    assert human(size) == text


@pytest.mark.parametrize(
    ("us", "shown"),
    [
        (0.0, "0us"),
        (12.34, "12.3us"),
        (99.6, "100us"),
        (999.4, "999us"),
        (999.9, "1ms"),
        (250_000.0, "250ms"),
        (999_999.0, "1s"),
        (61e6, "61s"),
    ],
)
def test_durations_have_at_most_six_characters(us: float, shown: str) -> None:
    assert duration(us) == shown
    assert len(shown) <= 6


@pytest.mark.parametrize(
    ("data", "kept", "found"),
    [(300, 100, 3.0), (100, 200, 0.5), (0, 0, None), (0, 100, None), (100, 0, None)],
)
def test_a_ratio_is_of_what_is_stored(data: int, kept: int, found: float | None) -> None:
    assert ratio(data, kept) == found
