"""Charts: where things are, and that what is drawn is well-formed."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from vswapd.cli.svg import Chart, Line, draw, swatch
from vswapd.figures import human


def svg(*lines: Line, times: list[float] | None = None, **more: object) -> ElementTree.Element:
    known = times or [float(at) for at in range(len(lines[0].values))]
    chart = Chart("A & <B>", known, lines, lambda value: f"{value:g}", **more)  # type: ignore[arg-type]
    return ElementTree.fromstring(draw(chart))


def paths(of: ElementTree.Element) -> list[str]:
    return [path.get("d", "") for path in of.iter("path") if "line" in path.get("class", "")]


def ticks(of: ElementTree.Element) -> list[str]:
    texts = [text for text in of.iter("text") if text.get("text-anchor") == "end"]
    return [text.text or "" for text in texts if (text.get("x") or "") == "68"]


def test_names_are_escaped_and_said_to_who_does_not_see() -> None:
    found = svg(Line("a<b>&\"'", [1, 2]))
    assert found.get("role") == "img"
    assert found.get("aria-label") == "A & <B>"
    assert [title.text for title in found.iter("title")] == ["A & <B>", "a<b>&\"'"]


def test_the_highest_value_is_at_the_top_and_0_at_the_bottom() -> None:
    [path] = paths(svg(Line("a", [0, 4]), times=[0, 10]))
    assert path == "M76.0 212.0L866.0 12.0"


def test_where_there_is_no_value_the_line_is_broken() -> None:
    [path] = paths(svg(Line("a", [1, 2, None, 3, None])))
    assert path.count("M") == 2
    assert path.count("L") == 1
    assert path.endswith("h.1")


def test_a_line_without_values_is_nothing() -> None:
    assert paths(svg(Line("a", [None, None]), Line("b", [1, 2])))[0] == ""


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0.0, ["0", "1"]),
        (4.0, ["0", "1", "2", "3", "4"]),
        (7.0, ["0", "2", "4", "6", "8"]),
        (950.0, ["0", "500", "1000"]),
        (0.03, ["0", "0.01", "0.02", "0.03"]),
    ],
)
def test_ticks_are_round(most: float, expected: list[str]) -> None:
    assert ticks(svg(Line("a", [0, most]))) == expected


def test_ticks_of_bytes_are_round_in_powers_of_2() -> None:
    chart = Chart("x", [0, 1], [Line("a", [0, 700 << 20])], lambda value: human(int(value)), base=2)
    assert ticks(ElementTree.fromstring(draw(chart))) == ["0", "256M", "512M", "768M"]


def test_a_logarithmic_axis_has_powers_of_10() -> None:
    found = svg(Line("a", [3, None, 4000]), log=True)
    assert ticks(found) == ["1", "10", "100", "1000", "10000"]


@pytest.mark.parametrize("values", [[None], [0.0], [5.0], [1e18], [-3.0]])
@pytest.mark.parametrize("log", [True, False])
def test_any_single_value_can_be_drawn(values: list[float | None], log: bool) -> None:
    for path in paths(svg(Line("a", values), log=log)):
        assert re.fullmatch(r"(M471\.0 \d+\.\dh\.1)?", path)


def test_lines_differ_in_dashes_too() -> None:
    dashes = [re.search(r'dasharray="(.*?)"', swatch(at)) for at in range(4)]
    assert len({dash and dash[1] for dash in dashes}) == 4


# --- Gaps and marks ------------------------------------------------------------------------


@pytest.mark.parametrize(("passed", "pieces"), [(10, 1), (25, 1), (31, 2), (7200, 2)])
def test_no_line_goes_over_a_time_that_nobody_looked_at(passed: int, pieces: int) -> None:
    """The machine slept. The two samples beside a takeover are still one line."""
    times = [0.0, 10.0, 10.0 + passed, 20.0 + passed]
    [path] = paths(svg(Line("a", [1, 2, 3, 4]), times=times, seconds=[10.0] * 4))
    assert path.count("M") == pieces
    assert path.count("L") == 4 - pieces


def test_a_point_that_stands_for_a_longer_time_is_no_gap() -> None:
    [path] = paths(svg(Line("a", [1, 2]), times=[0.0, 300.0], seconds=[10.0, 300.0]))
    assert path.count("M") == 1


def test_marks_are_where_their_times_are() -> None:
    found = svg(Line("a", [1, 2]), times=[100.0, 200.0], marks=[50.0, 150.0, 201.0])
    marks = [path.get("d") for path in found.iter("path") if path.get("class") == "mark"]
    [ends] = paths(found)
    left, right = (float(x) for x in re.findall(r"[ML]([0-9.]+) ", ends))
    assert marks == [f"M{(left + right) / 2:.1f} 12V212"]
