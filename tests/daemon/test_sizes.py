"""Sizes: expressions give what Python's own arithmetic gives, and everything else one line."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswap.errors import UserError
from vswapd import sizes
from vswapd.sizes import ExpressionError, evaluate, parse_size

RAM = 16 << 30
UNITS = {"": 1, "k": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, " GiB": 1 << 30, "b": 1}

# What is written for vswap, what Python makes the same value of, and how deep it is nested.
Written = tuple[str, str]

numbers: st.SearchStrategy[Written] = st.tuples(
    st.integers(0, 10**6), st.sampled_from(sorted(UNITS))
).map(lambda pair: (f"{pair[0]}{pair[1]}", f"Fraction({pair[0] * UNITS[pair[1]]})"))
percents: st.SearchStrategy[Written] = st.integers(0, 300).map(
    lambda number: (f"{number}%", f"(Fraction({number}) * ram / 100)")
)
leaves = numbers | percents | st.just(("ram", "ram"))


def larger(parts: st.SearchStrategy[Written]) -> st.SearchStrategy[Written]:
    """Expressions made of `parts`. Brackets are only where they are drawn: precedence counts."""
    spaced = st.sampled_from(["", " "])
    binary = st.tuples(parts, spaced, st.sampled_from("+-*/"), spaced, parts).map(
        lambda p: (f"{p[0][0]}{p[1]}{p[2]}{p[3]}{p[4][0]}", f"{p[0][1]}{p[2]}{p[4][1]}")
    )
    bracketed = parts.map(lambda part: (f"({part[0]})", f"({part[1]})"))
    signed = st.tuples(st.sampled_from("+-"), parts).map(
        lambda p: (f"{p[0]}({p[1][0]})", f"{p[0]}({p[1][1]})")
    )
    functions = st.tuples(
        st.sampled_from(["min", "max"]), st.lists(parts, min_size=1, max_size=3)
    ).map(lambda p: (called(p[0], [a for a, _ in p[1]]), called(p[0], [b for _, b in p[1]])))
    return binary | bracketed | signed | functions


def called(function: str, arguments: list[str]) -> str:
    """A call; min and max of one thing are not what Python has them for."""
    return f"{function}({', '.join(arguments * (2 if len(arguments) == 1 else 1))})"


@given(st.recursive(leaves, larger, max_leaves=8), st.integers(1, 1 << 44))
def test_an_expression_has_the_value_that_python_computes(written: Written, ram: int) -> None:
    text, python = written
    names = {"ram": Fraction(ram), "Fraction": Fraction, "min": min, "max": max}
    try:
        expected = eval(python, {"__builtins__": {}}, names)
    except ZeroDivisionError:
        expected = None
    try:
        assert evaluate(text, ram) == expected
    except ExpressionError as error:
        reason = str(error)
        assert (expected is None and "by zero" in reason) or "16 deep" in reason or "256" in reason


@given(st.text(st.sampled_from("0123456789.kMGTb%+-*/(), raminx\n\t_e"), max_size=300))
def test_any_text_is_a_size_or_one_line(text: str) -> None:
    try:
        assert parse_size(text) > 0
    except UserError as error:
        assert "\n" not in str(error)
        assert len(str(error)) < 400


@pytest.fixture
def _ram(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sizes, "machine_memory", lambda: RAM)


@pytest.mark.usefixtures("_ram")
@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("ram", RAM),
        ("50%", RAM // 2),
        ("50 %", RAM // 2),
        ("12.5%", RAM // 8),
        ("min(ram / 2, 4G)", 4 << 30),
        ("min(ram/2,4G)", 4 << 30),
        ("max(ram / 2, 4 GiB, 1M)", 8 << 30),
        ("min(7M)", 7 << 20),
        ("ram - 1G * 2", 14 << 30),
        ("(ram - 1G) * 2", 30 << 30),
        ("ram / 2 / 2", 4 << 30),
        ("1G - 1M - 1M", (1 << 30) - (2 << 20)),
        ("--1G", 1 << 30),
        ("min(ram\n/ 2, 4G)", 4 << 30),
        ("ram / 3", RAM // 3 // 4096 * 4096),
        ("4096 * 1.5", 4096),
    ],
)
def test_what_is_computed_is_whole_pages(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.usefixtures("_ram")
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ram / 0", "size 'ram / 0' is not a size: it divides by zero"),
        ("ram / (1G - 1024M)", "size 'ram / (1G - 1024M)' is not a size: it divides by zero"),
        ("1G - 2G", "size must be more than zero, not 1G - 2G"),
        ("-50%", "size must be more than zero, not -50%"),
        ("ram * 0", "size must be more than zero, not ram * 0"),
        ("1k * 2", "size must be at least 4 KiB, and 1k * 2 is less"),
        ("8E * 8E", "size must be less than 8E, and 8E * 8E is more"),
        ("min(ram / 2, 4G", "size 'min(ram / 2, 4G' is not a size: ')' is missing before its end"),
        ("min ram", "size 'min ram' is not a size: '(' is missing before 'ram'"),
        ("min()", "size 'min()' is not a size: a number is missing before ')'"),
        ("ram / ", "size 'ram / ' is not a size: a number is missing before its end"),
        ("ram 4", "size 'ram 4' is not a size: a number is not expected there"),
        ("1G)", "size '1G)' is not a size: ')' is not expected there"),
        ("ram ** 2", "size 'ram ** 2' is not a size: a number is missing before '*'"),
        ("avg(ram, 1G)", "size 'avg(ram, 1G)' is not a size: it knows no 'avg', only ram, min and"),
        ("RAM / 2", "size 'RAM / 2' is not a size: it knows no 'RAM', only ram, min and max"),
        ("nan + 1", "size 'nan + 1' is not a size: it knows no 'nan', only ram, min and max"),
        ("5G%", "size '5G%' is not a size: '5G%' has a unit and a %"),
        ("1 + 1e9", "size '1 + 1e9' is not a size: nothing sensible begins at '1e9'"),
        ("ram; 1", "size 'ram; 1' is not a size: nothing sensible begins at '; 1'"),
        ("(" * 40 + "1G", "size '((((("),
        ("-" * 17 + "1G", "size '-----------------1G' is not a size: its signs and brackets are"),
        ("1+" * 200 + "1", "size '1+1+1+1+1+1+1+1+...' is not a size: it is longer than 256 char"),
        ("__import__('os')", "size \"__import__('os')\" is not a size: nothing sensible begins at"),
    ],
)
def test_what_has_no_value_gets_its_reason(text: str, reason: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_size(text)
    assert str(caught.value).startswith(reason)


def test_numbers_are_bytes_and_exact() -> None:
    assert parse_size("4097") == 4097
    assert parse_size("1.5k", "memory-limit") == 1536


def test_longest_products_are_computed_soon() -> None:
    """Fractions grow, but no further than a text of 256 characters can have them."""
    assert evaluate("9E*" * 84 + "9E", 1) == Fraction(9 << 60) ** 85
