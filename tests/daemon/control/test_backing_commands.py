"""The commands of a backing: what they take, what they refuse, what they do to a real store."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from vswap.errors import UserError
from vswap.geometry import PAGE_SIZE, Geometry
from vswap.store import Lane, Policy, Selection, Shape, State, Store
from vswap.store.backing import MemoryBacking
from vswap.store.backing_desk import BackingDesk
from vswapd.control import commands_of
from vswapd.control.backing_commands import parse_writeback
from vswapd.control.ctl import cut

SIZE = 16 << 20
PAGES = 4096
MIB = 1 << 20
SHAPE = Shape(Geometry(SIZE), segments=64, buffers=1, buffer_size=PAGE_SIZE)


class Disk(MemoryBacking):
    """Takes no writes for as long as `broken`."""

    broken = False

    def write(self, offset: int, data: memoryview) -> None:
        if self.broken:
            raise OSError(errno.EIO, "broken", self.name)
        super().write(offset, data)


@pytest.fixture
def store() -> Iterator[Store]:
    state = State.create(SHAPE)
    store = Store(state, Policy())
    yield store
    store.close()
    state.close()


@pytest.fixture
def lane(store: Store) -> Lane:
    return store.lane()


class Desk:
    """Gives commands, and notes what they ask the worker for."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.backing = Disk(8 * MIB, "/b")
        self.asked: list[str] = []

    def attach(self, path: str) -> None:
        self.asked.append(path)
        self.backing.name = path
        self.store.backing.attach(self.backing)

    def do(self, line: str) -> str:
        name, rest = cut(line)
        stir = lambda: self.asked.append("stir")  # noqa: E731
        return commands_of(self.store, self.attach, stir)[name](rest)()


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)


def fill(lane: Lane, pages: int, content: Callable[[int], bytes] = os.urandom) -> None:
    """Pages that do not compress, unless their content is another."""
    for page in range(pages):
        lane.write(page * PAGE_SIZE, memoryview(content(PAGE_SIZE)))


def words(size: int) -> bytes:
    return (os.urandom(8).hex().encode() + b" " * 16) * (size // 32)


# --- What they take ------------------------------------------------------------------------

IDLE = Selection(huge=None, cold=None, idle=True)
HUGE = Selection(huge=True, cold=None)


def slots(first: int, end: int) -> Selection:
    return Selection(huge=None, cold=None, slots=(first, end))


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        ("idle", [IDLE]),
        ("type=idle", [IDLE]),
        ("huge", [HUGE]),
        ("type=huge", [HUGE]),
        ("huge_idle", [Selection(huge=True, cold=None, idle=True)]),
        ("incompressible", [Selection(huge=True, cold=True)]),
        ("page_index=0", [slots(0, 1)]),
        ("page_index=7", [slots(7, 8)]),
        ("page_indexes=1-100", [slots(1, 101)]),
        ("page_indexes=5-5", [slots(5, 6)]),
        ("page_index=1 page_indexes=3-4 page_index=9", [slots(1, 2), slots(3, 5), slots(9, 10)]),
    ],
)
def test_writeback_takes_zram_s_words(line: str, taken: list[Selection]) -> None:
    assert parse_writeback(line.split()) == tuple(taken)


# --- What they refuse ----------------------------------------------------------------------

TYPES = "idle|huge|huge_idle|incompressible|page_index=N|page_indexes=A-B"
ALL = "which is all that this device could use"
ONE_LINE = "a path without line breaks and NUL"

REFUSED = [
    ("writeback", f"writeback takes {TYPES}, not nothing"),
    ("writeback cold", f"unknown parameter 'cold'; write {TYPES}"),
    ("writeback type=", f"unknown parameter 'type='; write {TYPES}"),
    ("writeback page=1", f"unknown parameter 'page=1'; write {TYPES}"),
    ("writeback idle huge", "writeback takes one type, or only page_index= and page_indexes="),
    ("writeback idle page_index=1", "writeback takes one type, or only page_index= and page_ind"),
    ("writeback page_index=1 huge", "writeback takes one type, or only page_index= and page_ind"),
    ("writeback page_index=", "page_index must be a whole number, not ''"),
    ("writeback page_index=x", "page_index must be a whole number, not 'x'"),
    ("writeback page_index=-1", "page_index is one page's; write page_indexes=-1"),
    ("writeback page_index=1-2", "page_index is one page's; write page_indexes=1-2"),
    ("writeback page_indexes=", "page_indexes must be like 0-99, not ''"),
    ("writeback page_indexes=4", "page_indexes must be like 0-99, not '4'"),
    ("writeback page_indexes=4-", "page_indexes must be a whole number, not ''"),
    ("writeback page_indexes=-4", "page_indexes must be a whole number, not ''"),
    ("writeback page_indexes=1-2-3", "page_indexes must be a whole number, not '2-3'"),
    ("writeback page_indexes=4-3", "page_indexes must go upwards, and 4-3 does not"),
    ("writeback page_index=4096", "the device has pages 0 to 4095, not 4096"),
    ("writeback page_indexes=0-4096", "the device has pages 0 to 4095, not 4096"),
    ("writeback page_index=0 page_index=5000", "the device has pages 0 to 4095, not 5000"),
    ("writeback_limit", "writeback_limit takes N, not nothing"),
    ("writeback_limit 1M", "writeback_limit must be a whole number, not '1M'"),
    ("writeback_limit -1", "writeback_limit must be a whole number, not '-1'"),
    ("writeback_limit 1 2", "writeback_limit takes N, not '1 2'"),
    ("writeback_limit_enable", "writeback_limit_enable takes 0|1, not nothing"),
    ("writeback_limit_enable 2", "writeback_limit_enable must be 0 or 1, not '2'"),
    ("writeback_limit_enable yes", "writeback_limit_enable must be 0 or 1, not 'yes'"),
    ("backing give", "backing takes [attach PATH|grow SIZE|detach|stop|status], not 'give'"),
    ("backing attach", "backing attach takes an absolute path, not ''"),
    ("backing attach b.img", "backing attach takes an absolute path, not 'b.img'"),
    ("backing attach b  /c", "backing attach takes an absolute path, not 'b  /c'"),
    ("backing attach /a\nb", f"backing attach takes {ONE_LINE}, not '/a\\nb'"),
    ("backing attach /a\n", f"backing attach takes {ONE_LINE}, not '/a\\n'"),
    ("backing attach /a\0b", f"backing attach takes {ONE_LINE}, not '/a\\x00b'"),
    ("backing grow", "backing grow takes SIZE, not nothing"),
    ("backing grow big", "size 'big' is not a size; write it like 512M or 1.5G"),
    ("backing grow 0", "size must be more than zero, not 0"),
    ("backing grow 129M", f"size must be at most 128M, {ALL}, not 135266304 bytes"),
    ("backing grow 134217729", f"size must be at most 128M, {ALL}, not 134217729 bytes"),
    ("backing grow 1 G", "backing grow takes SIZE, not '1 G'"),
    ("backing detach now", "unexpected 'now'; the command takes no arguments"),
    ("backing stop it", "unexpected 'it'; the command takes no arguments"),
    ("backing status all", "unexpected 'all'; the command takes no arguments"),
]


@pytest.mark.parametrize(("line", "reason"), REFUSED)
def test_mistakes_have_a_reason_of_one_line(line: str, reason: str, desk: Desk) -> None:
    with pytest.raises(UserError) as caught:
        desk.do(line)
    assert str(caught.value).startswith(reason)
    assert "\n" not in str(caught.value)
    assert not desk.asked


@pytest.mark.parametrize(
    "line",
    ["writeback idle", "writeback_limit 1", "writeback_limit_enable 1", "backing grow 32M"],
)
def test_without_a_backing_there_is_nothing_to_do(line: str, desk: Desk) -> None:
    with pytest.raises(UserError, match="no backing is attached; `vswap backing attach FILE`"):
        desk.do(line)


def test_nothing_to_detach(desk: Desk) -> None:
    with pytest.raises(UserError, match="no backing is attached"):
        desk.do("backing detach")
    assert not desk.asked


# --- What they do: attach and look ---------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["/b", "/a b/c d.img", "/a  b", "/a ", "/a\tb \r", "/ /\u00a0  \u2028"]
)
@pytest.mark.parametrize("between", [" ", "  ", "\t"])
def test_attach_takes_all_the_rest_for_the_path(path: str, between: str, desk: Desk) -> None:
    assert desk.do(f"backing{between}attach{between}{path}") == (
        f"{path} is attached: 0 pages in 0 bytes, 8 of 8 MiB free"
    )
    assert desk.asked == [path]
    with pytest.raises(UserError, match="is attached already; detach it first"):
        desk.do("backing attach /c")


def test_status_is_what_backing_alone_tells(desk: Desk, lane: Lane) -> None:
    assert desk.do("backing") == desk.do("backing status") == "no backing is attached"
    desk.do("backing attach /b")
    fill(lane, 1)
    assert desk.do("writeback page_index=0") == "1 page written back"
    bytes_on_disk = desk.store.statistics().backing_data_size
    assert desk.do("backing") == (
        f"/b is attached: 1 page in {bytes_on_disk} bytes, 7 of 8 MiB free"
    )


def test_grow(desk: Desk) -> None:
    desk.do("backing attach /b")
    assert desk.do("backing grow 16M").endswith("16 of 16 MiB free")
    with pytest.raises(UserError, match="it does not shrink"):
        desk.do("backing grow 8M")


def test_a_backing_grows_to_what_the_device_can_use_and_no_further(desk: Desk) -> None:
    desk.do("backing attach /b")
    with pytest.raises(UserError, match="must be at most 128M"):
        desk.do(f"backing grow {(128 << 20) + 1}")
    assert desk.backing.size == 8 * MIB
    assert desk.do("backing grow 128M").endswith("128 of 128 MiB free")


# --- writeback -----------------------------------------------------------------------------


@pytest.fixture
def attached(desk: Desk) -> Desk:
    desk.do("backing attach /b")
    desk.asked.clear()
    return desk


def test_pages_are_written_back_by_their_numbers(attached: Desk, lane: Lane) -> None:
    fill(lane, 64)
    before = [bytes(b"".join(lane.read(page * PAGE_SIZE, PAGE_SIZE))) for page in range(4)]
    assert attached.do("writeback page_index=1 page_indexes=3-4") == "3 pages written back"
    assert attached.store.statistics().backing_pages == 3
    assert attached.do("writeback page_indexes=0-9") == "7 pages written back"
    after = [bytes(b"".join(lane.read(page * PAGE_SIZE, PAGE_SIZE))) for page in range(4)]
    assert after == before


def test_all_pages_are_looked_at_before_any_is_written(attached: Desk, lane: Lane) -> None:
    fill(lane, 4)
    with pytest.raises(UserError, match="not 4096"):
        attached.do("writeback page_index=0 page_indexes=1-4096")
    assert attached.store.statistics().backing_pages == 0


def test_writeback_by_type(attached: Desk, lane: Lane) -> None:
    fill(lane, 8)
    for page in range(8, 16):
        lane.write(page * PAGE_SIZE, memoryview(words(PAGE_SIZE)))
    assert attached.do("writeback incompressible") == "0 pages written back"
    assert attached.do("writeback huge_idle") == "0 pages written back"
    assert attached.do("writeback huge") == "8 pages written back"
    assert attached.do("writeback idle") == "0 pages written back"
    attached.do("idle all")
    assert attached.do("writeback idle") == "8 pages written back"


def test_the_limit_of_the_day(attached: Desk, lane: Lane) -> None:
    fill(lane, 1024)
    assert attached.do("writeback_limit 300") == (
        "writeback limit 300 units of 4 KiB a day, 300 left, not enabled"
    )
    assert attached.do("writeback_limit_enable 1") == (
        "writeback limit 300 units of 4 KiB a day, 300 left, enabled"
    )
    assert attached.do("writeback huge").endswith(
        " pages written back; the limit of the day is used up"
    )
    left = attached.store.statistics().writeback_limit_left
    assert attached.do("writeback_limit_enable 0") == (
        f"writeback limit 300 units of 4 KiB a day, {left} left, not enabled"
    )
    assert attached.do("writeback page_index=1000") == "1 page written back"


def test_a_full_disk(attached: Desk, lane: Lane) -> None:
    fill(lane, 3000)
    assert attached.do("writeback huge").endswith(" pages written back; the disk is full")


def test_a_disk_that_fails(attached: Desk, lane: Lane) -> None:
    fill(lane, 100)
    attached.backing.broken = True
    assert attached.do("writeback huge") == (
        "0 pages written back; the disk rests, for writing to it has failed"
    )
    assert attached.do("backing").startswith("/b is resting: 0 pages")


# --- detach and stop -----------------------------------------------------------------------


def test_detaching_begins_at_once_and_is_done_in_the_background(attached: Desk, lane: Lane) -> None:
    fill(lane, 600)
    attached.do("writeback huge")
    assert attached.do("backing detach") == (
        "detaching; `stats` tells how far it is, `backing stop` stops it"
    )
    assert attached.asked == ["stir"]
    assert attached.do("backing").startswith("/b is detaching: 600 pages")
    assert attached.do("writeback huge") == "0 pages written back; the backing is being detached"
    with pytest.raises(UserError, match="is being detached already"):
        attached.do("backing detach")
    while attached.store.statistics().backing_state == "detaching":
        attached.store.step()
    assert attached.do("backing") == ("no backing is attached; the last detaching: all came back")


def test_what_is_not_back_stays_when_it_is_stopped(attached: Desk, lane: Lane) -> None:
    fill(lane, 600)
    attached.do("writeback huge")
    attached.do("backing detach")
    said = attached.do("backing stop")
    assert said.startswith("/b is attached: 600 pages")
    assert said.endswith("; the last detaching: stopped")
    assert attached.do("backing stop") == said


@pytest.mark.parametrize(
    ("result", "told"),
    [("memory", "memory did not suffice"), ("unreadable", "some could not be read")],
)
def test_how_a_detaching_ended_is_told(
    result: str, told: str, attached: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = replace(attached.store.backing.statistics(), detach_result=result)
    monkeypatch.setattr(BackingDesk, "statistics", lambda _desk: now)
    assert attached.do("backing").endswith(f"MiB free; the last detaching: {told}")
