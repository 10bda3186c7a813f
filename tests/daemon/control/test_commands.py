"""The commands: what they take, what they refuse, and what they do to a real store."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE, Geometry
from vswap.store import Findings, Lane, Policy, Selection, Shape, State, Store, least_memory
from vswapd.control import commands_of
from vswapd.control.commands import (
    Recompression,
    parse_idle,
    parse_limit,
    parse_presence,
    parse_recompress,
)
from vswapd.control.ctl import Command, FoundError, cut
from vswapd.usage import COMMANDS

SIZE = 16 << 20
PAGES = 1024
SHAPE = Shape(Geometry(SIZE), segments=64, buffers=1, buffer_size=PAGE_SIZE)


@pytest.fixture
def store() -> Iterator[Store]:
    state = State.create(SHAPE)
    yield Store(state, Policy())
    state.close()


@pytest.fixture
def lane(store: Store) -> Lane:
    return store.lane()


def of(store: Store, stirred: list[str] | None = None) -> dict[str, Command]:
    """The commands, which note when the background is stirred."""
    noted = [] if stirred is None else stirred

    def attach(_path: str) -> None:
        raise AssertionError("nothing here is to be attached")

    return commands_of(store, attach, lambda: noted.append("stirred"))


def do(store: Store, line: str) -> str:
    name, rest = cut(line)
    return of(store)[name](rest)()


def fill(lane: Lane, pages: int = PAGES) -> None:
    """Pages that compress, each another."""
    for page in range(pages):
        lane.write(
            page * PAGE_SIZE, memoryview((b"%07d " % page + b"words " * 20) * 64)[:PAGE_SIZE]
        )


# --- What they take ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "limit"),
    [("512M", 512 << 20), ("1.5G", 3 << 29), ("4096", 4096), ("0", None), ("none", None)],
)
def test_memory_limit_takes(line: str, limit: int | None) -> None:
    assert parse_limit(line.split()) == limit


@pytest.mark.parametrize(("line", "age"), [("all", 0), ("0", 0), ("3600", 3600)])
def test_idle_takes(line: str, age: int) -> None:
    assert parse_idle(line.split()) == age


def test_presence_takes_slots() -> None:
    assert parse_presence(["8", "16"]) == (8, 16)


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("", Recompression(Selection(), None)),
        ("type=idle", Recompression(Selection(idle=True), None)),
        ("type=huge", Recompression(Selection(huge=True), None)),
        ("type=huge_idle", Recompression(Selection(huge=True, idle=True), None)),
        ("threshold=3000", Recompression(Selection(threshold=3000), None)),
        ("max_pages=42", Recompression(Selection(), 42)),
        (
            "max_pages=1 threshold=2000 type=idle",
            Recompression(Selection(idle=True, threshold=2000), 1),
        ),
    ],
)
def test_recompress_takes_zram_s_parameters(line: str, taken: Recompression) -> None:
    assert parse_recompress(line.split()) == taken


# --- What they refuse ----------------------------------------------------------------------

REFUSED = [
    ("memory_limit", "memory_limit takes SIZE|none, not nothing"),
    ("memory_limit 1 2", "memory_limit takes SIZE|none, not '1 2'"),
    ("memory_limit x", "memory_limit 'x' is not a size; write it like 512M or 1.5G"),
    ("memory_limit -1G", "memory_limit must be more than zero, not -1G"),
    ("compact now", "unexpected 'now'; the command takes no arguments"),
    ("check it", "unexpected 'it'; the command takes no arguments"),
    ("help me", "unexpected 'me'; the command takes no arguments"),
    ("idle", "idle takes all|SECONDS, not nothing"),
    ("idle some", "SECONDS must be a whole number, not 'some'"),
    ("idle -1", "SECONDS must be a whole number, not '-1'"),
    ("idle 1.5", "SECONDS must be a whole number, not '1.5'"),
    ("idle \u0661", "SECONDS must be a whole number, not '\u0661'"),
    ("presence", "presence takes START N, not nothing"),
    ("presence 1", "presence takes START N, not '1'"),
    ("presence 1 2 3", "presence takes START N, not '1 2 3'"),
    ("presence a 2", "START must be a whole number, not 'a'"),
    ("presence 0 0x2", "N must be a whole number, not '0x2'"),
    ("recompress type", "unknown parameter 'type'; write [type=idle|huge|huge_idle] "),
    ("recompress idle", "unknown parameter 'idle'; write [type=idle|huge|huge_idle] "),
    ("recompress =", "unknown parameter '='; write "),
    ("recompress speed=1", "unknown parameter 'speed=1'; write "),
    ("recompress type=", "type must be one of idle, huge, huge_idle, not ''"),
    ("recompress type=cold", "type must be one of idle, huge, huge_idle, not 'cold'"),
    ("recompress type=idle type=idle", "type is given twice"),
    ("recompress threshold=", "threshold must be a whole number, not ''"),
    ("recompress threshold=1k", "threshold must be a whole number, not '1k'"),
    ("recompress threshold=4097", "threshold must be at most a page's 4096 bytes, not 4097"),
    ("recompress max_pages=-1", "max_pages must be a whole number, not '-1'"),
    ("recompress max_pages=0", "max_pages must be more than zero; leave it out for no limit"),
    ("recompress algo=zstd", "algo cannot be chosen: there is one codec for old pages"),
    ("recompress priority=1", "priority cannot be chosen: there is one codec for old pages"),
]


@pytest.mark.parametrize(("line", "reason"), REFUSED)
def test_mistakes_have_a_reason_of_one_line(line: str, reason: str, store: Store) -> None:
    name, rest = cut(line)
    with pytest.raises(UserError) as caught:
        of(store)[name](rest)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("memory_limit 1M", "memory limit must be at least 6M for this device, not 1048576 bytes"),
        ("presence 4096 1", "the device has no 1 slots from 4096 on"),
        ("presence 0 0", "the device has no 0 slots from 0 on"),
        ("presence 0 999999999999999999", "the device has no 999999999999999999 slots from 0 on"),
    ],
)
def test_what_the_store_refuses_has_a_reason(line: str, reason: str, store: Store) -> None:
    with pytest.raises(UserError) as caught:
        do(store, line)
    assert str(caught.value) == reason


@given(
    st.sampled_from(sorted(COMMANDS)),
    st.lists(
        st.text(min_size=1)
        | st.tuples(
            st.sampled_from(
                ["type=", "threshold=", "max_pages=", "algo=", "page_index=", "page_indexes=", ""]
            ),
            st.integers().map(str) | st.text(max_size=5),
        ).map("".join)
    ),
)
def test_parsing_gives_something_to_do_or_a_user_error(name: str, words: list[str]) -> None:
    taken = of(None)[name]  # type: ignore[arg-type]  # nothing is done to it
    try:
        assert callable(taken(" ".join(words)))
    except UserError as error:
        assert "\n" not in str(error)


# --- What they do --------------------------------------------------------------------------


def test_help_has_a_line_for_each_command(store: Store) -> None:
    lines = do(store, "help").splitlines()
    assert [line.split()[0].rstrip(":") for line in lines] == list(COMMANDS)
    assert set(of(store)) == set(COMMANDS)


def test_memory_limit_is_live(store: Store) -> None:
    least = least_memory(SHAPE)
    assert do(store, f"memory_limit {least}") == f"memory limit {least} bytes"
    assert store.statistics().mem_limit == least
    assert do(store, "memory_limit 0") == "no memory limit"
    assert store.statistics().mem_limit == 0


def test_a_new_memory_limit_stirs_the_background(store: Store) -> None:
    stirred: list[str] = []
    of(store, stirred)["memory_limit"]("none")()
    assert stirred == ["stirred"]


def test_compact_wins_back_dead_space(store: Store, lane: Lane) -> None:
    noise = os.urandom(8 * PAGE_SIZE)
    for offset in range(0, SIZE // 2, len(noise)):
        lane.write(offset, memoryview(noise))
    for offset in range(0, SIZE // 2, 2 * PAGE_SIZE):
        lane.discard(offset, PAGE_SIZE)
    before = store.statistics()
    words = do(store, "compact").split()
    after = store.statistics()
    assert words[1:3] == ["segments", "cleaned,"]
    assert words[4:] == ["bytes", "won", "back"]
    assert int(words[0]) == after.segments_cleaned > 0
    assert int(words[3]) == before.segment_bytes - after.segment_bytes > 0


def test_compact_never_wins_less_than_nothing(store: Store, lane: Lane) -> None:
    assert store.compact() == 0
    result = do(store, "compact")
    assert result == "0 segments cleaned, 0 bytes won back"


def test_recompress_moves_down(store: Store, lane: Lane) -> None:
    fill(lane)
    assert do(store, "recompress type=huge") == "0 pages recompressed"
    assert do(store, "recompress type=idle") == "0 pages recompressed"
    some = int(do(store, "recompress max_pages=100").split()[0])
    assert 100 <= some < 200
    rest = int(do(store, "recompress").split()[0])
    assert some + rest == PAGES == store.statistics().cold_pages
    assert do(store, "recompress") == "0 pages recompressed"


def test_idle_marks_what_recompress_then_takes(store: Store, lane: Lane) -> None:
    fill(lane)
    assert do(store, "idle 3600") == "0 pages marked idle"
    assert do(store, "idle all") == f"{PAGES} pages marked idle"
    assert do(store, "recompress type=idle") == f"{PAGES} pages recompressed"


def test_one_page_is_no_pages(store: Store, lane: Lane) -> None:
    fill(lane, 1)
    assert do(store, "idle all") == "1 page marked idle"


def test_presence(store: Store, lane: Lane) -> None:
    fill(lane, 17)
    assert do(store, "presence 0 17") == "ALL 17"
    assert do(store, "presence 0 18") == "MIXED 17"
    assert do(store, "presence 17 600") == "NONE 600"


def test_check_of_a_sound_store(store: Store, lane: Lane) -> None:
    fill(lane)
    words = do(store, "check").split()
    assert words[:4] == ["ok:", str(PAGES), "pages", "in"]
    assert words[5:8] == ["units;", "stopped", "for"]
    assert float(words[8]) >= 0


def test_check_that_finds_something(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    problems = ("UNIT: bad", "LOG-LIVE: worse")
    monkeypatch.setattr(Store, "check", lambda _store: Findings(problems, 5, 3, 0.001))
    with pytest.raises(FoundError) as caught:
        do(store, "check")
    assert str(caught.value) == "PROBLEMS: 2\nUNIT: bad\nLOG-LIVE: worse"
