"""The namespace's handlers, called as pyfuse3 calls them.

What they do to a real mount is in tests/mount.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar, cast

import pyfuse3
import pytest
import trio
from pyfuse3 import FileHandleT, FlagT, FUSEError, InodeT, RequestContext

from vswap.errors import UserError
from vswapd.control import Control, History, Namespace, Report, Rings
from vswapd.control import namespace as module
from vswapd.control.ctl import Action, FoundError
from vswapd.control.files import RENDERERS

SIZE = 64 << 20
FILES = [*RENDERERS, "history.json"]
CTX = cast(RequestContext, None)  # nobody looks at it
CTL = InodeT(3)

_T = TypeVar("_T")


def run(coroutine: Coroutine[Any, Any, _T]) -> _T:
    async def only() -> _T:
        return await coroutine

    return trio.run(only)


def echo(rest: str) -> Action:
    return lambda: rest


def refuse(rest: str) -> Action:
    raise UserError("no")


def find(rest: str) -> Action:
    def act() -> str:
        raise FoundError("\n".join(["PROBLEMS: 1000", *(f"problem {n}" for n in range(1000))]))

    return act


def fail(rest: str) -> Action:
    raise ZeroDivisionError("a fault of ours")


@dataclass
class Changing:
    """A device whose reports differ from one to the next."""

    report: Report
    writes: int = 0
    broken: bool = False

    def __call__(self) -> Report:
        if self.broken:
            raise ZeroDivisionError("a fault of ours")
        self.writes += 1
        return replace(self.report, store=replace(self.report.store, writes=self.writes))


@pytest.fixture
def device(report: Report) -> Changing:
    return Changing(report)


@pytest.fixture
def namespace(device: Changing, rings: Rings) -> Namespace:
    control = Control({"echo": echo, "refuse": refuse, "find": find, "fail": fail})
    return Namespace(SIZE, device, control, History(device, rings))


def inode(namespace: Namespace, name: str) -> InodeT:
    return run(namespace.lookup(pyfuse3.ROOT_INODE, name.encode(), CTX)).st_ino


def open_(namespace: Namespace, name: str, flags: int = os.O_RDONLY) -> FileHandleT:
    return run(namespace.open(inode(namespace, name), FlagT(flags), CTX)).fh


def read(namespace: Namespace, handle: FileHandleT, at: int = 0, size: int = 1 << 20) -> bytes:
    return run(namespace.read(handle, at, size))


def raised(coroutine: Coroutine[Any, Any, object]) -> int:
    with pytest.raises(FUSEError) as caught:
        run(coroutine)
    return int(caught.value.errno)


def test_the_swap_file_is_the_inode_of_the_data_plane(namespace: Namespace) -> None:
    assert inode(namespace, "swap") == 2


def test_each_name_has_an_inode_of_its_own(namespace: Namespace) -> None:
    names = ["swap", "ctl", *FILES]
    assert len({inode(namespace, name) for name in names}) == len(names)


@pytest.mark.parametrize("name", FILES)
def test_a_file_holds_what_its_renderer_says(name: str, namespace: Namespace) -> None:
    content = read(namespace, open_(namespace, name))
    assert content
    assert content.isascii()


def test_contents_are_rendered_at_open(namespace: Namespace, device: Changing) -> None:
    handle = open_(namespace, "stats.json")
    device()
    assert json.loads(read(namespace, handle))["writes"] == 1
    assert json.loads(read(namespace, open_(namespace, "stats.json")))["writes"] == 3


def test_a_file_read_in_pieces_is_consistent(namespace: Namespace, device: Changing) -> None:
    handle = open_(namespace, "stats")
    whole = read(namespace, handle)
    pieces = []
    for at in range(0, len(whole) + 7, 7):
        device()
        pieces.append(read(namespace, handle, at, 7))
    assert b"".join(pieces) == whole


def test_each_open_has_contents_of_its_own(namespace: Namespace) -> None:
    handles = [open_(namespace, "stats.json") for _ in range(3)]
    seen = [json.loads(read(namespace, handle))["writes"] for handle in handles]
    assert seen == [1, 2, 3]


@pytest.mark.parametrize("offset", [10**6, 1 << 40])
def test_beyond_the_end_there_is_nothing(offset: int, namespace: Namespace) -> None:
    assert read(namespace, open_(namespace, "stats"), offset) == b""


def test_a_closed_file_leaves_nothing(namespace: Namespace) -> None:
    for _ in range(100):
        run(namespace.release(open_(namespace, "stats")))
    assert not namespace._open


def test_handles_are_not_used_twice(namespace: Namespace) -> None:
    first = open_(namespace, "stats")
    run(namespace.release(first))
    assert open_(namespace, "stats") != first


def test_files_are_read_past_the_page_cache(namespace: Namespace) -> None:
    info = run(namespace.open(inode(namespace, "stats"), FlagT(os.O_RDONLY), CTX))
    assert info.direct_io


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_APPEND])
def test_rendered_files_cannot_be_opened_for_writing(
    name: str, flags: int, namespace: Namespace
) -> None:
    code = raised(namespace.open(inode(namespace, name), FlagT(flags), CTX))
    assert code == errno.EACCES
    assert not namespace._open


def test_unknown_names_are_enoent(namespace: Namespace) -> None:
    assert raised(namespace.lookup(pyfuse3.ROOT_INODE, b"nothing", CTX)) == errno.ENOENT


def test_files_hold_no_names(namespace: Namespace) -> None:
    assert raised(namespace.lookup(CTL, b"stats", CTX)) == errno.ENOENT


@pytest.mark.parametrize("number", [0, 99])
def test_unknown_inodes_are_enoent(number: int, namespace: Namespace) -> None:
    assert raised(namespace.getattr(InodeT(number), CTX)) == errno.ENOENT


@pytest.mark.parametrize("number", [0, 99])
def test_opening_an_unknown_inode_is_an_errno(number: int, namespace: Namespace) -> None:
    """Anything but a FUSEError ends pyfuse3, and with it the device."""
    raised(namespace.open(InodeT(number), FlagT(os.O_RDONLY), CTX))


def test_reading_an_unknown_handle_is_an_errno(namespace: Namespace) -> None:
    """A file that was opened while another worker served has such a handle."""
    raised(namespace.read(FileHandleT(4711), 0, 4096))


def test_statfs_counts_pages(namespace: Namespace, report: Report) -> None:
    data = run(namespace.statfs(CTX))
    assert (data.f_bsize, data.f_frsize, data.f_blocks) == (4096, 4096, SIZE // 4096)
    used = report.store.stored_pages + report.store.backing_pages
    assert data.f_bfree == data.f_bavail == SIZE // 4096 - used


def test_pages_on_the_move_are_no_more_than_all(namespace: Namespace, device: Changing) -> None:
    full = replace(device.report.store, stored_pages=SIZE // 4096, backing_pages=1)
    device.report = replace(device.report, store=full)
    assert run(namespace.statfs(CTX)).f_bfree == 0


# --- ctl -------------------------------------------------------------------------------


def write(namespace: Namespace, data: bytes, at: int = 0) -> int:
    return run(namespace.write(open_(namespace, "ctl", os.O_WRONLY), at, data))


def test_a_command_is_taken_whole(namespace: Namespace) -> None:
    assert write(namespace, b"echo done\n") == 10


def test_the_result_can_be_read(namespace: Namespace) -> None:
    write(namespace, b"echo done\n")
    assert read(namespace, open_(namespace, "ctl")) == b"done\n"


def test_a_wrong_command_is_einval_with_a_reason(namespace: Namespace) -> None:
    handle = open_(namespace, "ctl", os.O_WRONLY)
    assert raised(namespace.write(handle, 0, b"refuse\n")) == errno.EINVAL
    assert read(namespace, open_(namespace, "ctl")) == b"error: no\n"


@pytest.mark.parametrize("data", [b"", b"\n", b"\xff\xfe", b"\0" * 4096])
def test_rubbish_is_einval(data: bytes, namespace: Namespace) -> None:
    handle = open_(namespace, "ctl", os.O_WRONLY)
    assert raised(namespace.write(handle, 0, data)) == errno.EINVAL
    assert read(namespace, open_(namespace, "ctl")).startswith(b"error: ")


def test_a_command_beyond_any_size_is_e2big(namespace: Namespace) -> None:
    handle = open_(namespace, "ctl", os.O_WRONLY)
    assert raised(namespace.write(handle, 0, b"echo " + b"x" * 4096)) == errno.E2BIG


def test_findings_are_euclean_and_can_be_read(namespace: Namespace) -> None:
    handle = open_(namespace, "ctl", os.O_RDWR)
    assert raised(namespace.write(handle, 0, b"find\n")) == errno.EUCLEAN
    lines = read(namespace, handle).decode().splitlines()
    assert (lines[0], lines[-1], len(lines)) == ("PROBLEMS: 1000", "problem 999", 1001)


def test_a_descriptor_has_the_result_of_its_own_command(namespace: Namespace) -> None:
    mine, other = (open_(namespace, "ctl", os.O_RDWR) for _ in range(2))
    run(namespace.write(mine, 0, b"echo mine\n"))
    run(namespace.write(other, 0, b"echo other\n"))
    assert raised(namespace.write(other, 0, b"refuse\n")) == errno.EINVAL
    assert read(namespace, mine) == b"mine\n"
    assert read(namespace, other) == b"error: no\n"
    assert read(namespace, open_(namespace, "ctl")) == b"error: no\n"


def test_a_descriptor_that_only_reads_keeps_what_was_there_when_it_was_opened(
    namespace: Namespace,
) -> None:
    write(namespace, b"echo first")
    handle = open_(namespace, "ctl", os.O_RDWR)
    write(namespace, b"echo second")
    assert read(namespace, handle) == b"first\n"


def in_pieces(namespace: Namespace, handle: FileHandleT, at: int, size: int) -> bytes:
    found = b""
    while piece := read(namespace, handle, at + len(found), size):
        found += piece
    return found


@pytest.mark.parametrize("size", [1, 3, 7, 4096])
def test_who_reads_on_after_writing_gets_all_of_the_result(size: int, namespace: Namespace) -> None:
    """The descriptor's offset is then behind the command."""
    handle = open_(namespace, "ctl", os.O_RDWR)
    command = b"echo a result that is longer than the command was" + b"!" * 40
    at = run(namespace.write(handle, 0, command))
    assert in_pieces(namespace, handle, at, size) == command[5:] + b"\n"
    at += len(command) - 4
    at += run(namespace.write(handle, at, b"echo again"))
    assert in_pieces(namespace, handle, at, size) == b"again\n"


def test_who_reads_on_after_a_refusal_gets_all_of_the_reason(namespace: Namespace) -> None:
    """A write that failed does not move the descriptor's offset."""
    handle = open_(namespace, "ctl", os.O_RDWR)
    at = run(namespace.write(handle, 0, b"echo something"))
    assert raised(namespace.write(handle, at, b"refuse something longer")) == errno.EINVAL
    assert in_pieces(namespace, handle, at, 3) == b"error: no\n"


@pytest.mark.parametrize("size", [1, 3, 7, 4096])
def test_who_seeks_back_gets_all_of_the_result(size: int, namespace: Namespace) -> None:
    handle = open_(namespace, "ctl", os.O_RDWR)
    at = run(namespace.write(handle, 0, b"echo a long enough answer"))
    read(namespace, handle, at, 3)
    assert in_pieces(namespace, handle, 0, size) == b"a long enough answer\n"


def test_writing_to_an_unknown_handle_is_an_errno(namespace: Namespace) -> None:
    assert raised(namespace.write(FileHandleT(4711), 0, b"echo x")) == errno.EBADF


def test_a_result_may_hold_anything(namespace: Namespace) -> None:
    """A path that is no UTF-8, say, in a message of the system's."""
    handle = open_(namespace, "ctl", os.O_RDWR)
    namespace._control._commands = {"odd": lambda _rest: lambda: "odd \udcff"}
    run(namespace.write(handle, 0, b"odd"))
    assert read(namespace, handle) == b"odd ?\n"


# --- Files that were opened at an earlier worker -----------------------------------------


Succeed = Callable[..., Namespace]


@pytest.fixture
def successor(rings: Rings) -> Succeed:
    """Makes the namespace of the next worker."""

    def make(device: Changing, generation: int = 1) -> Namespace:
        control = Control({"echo": echo, "refuse": refuse, "find": find, "fail": fail})
        return Namespace(SIZE, device, control, History(device, rings), generation)

    return make


@pytest.mark.parametrize("name", FILES)
def test_who_begins_to_read_reads_what_is_so_now(
    name: str, namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    handle = open_(namespace, name)
    twin = replace(device)
    later, other = successor(device), successor(twin)
    assert read(later, handle) == read(other, open_(other, name))


def test_what_is_read_from_ctl_is_the_new_worker_s_last_result(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    write(namespace, b"echo a result that went with the worker")
    handle = open_(namespace, "ctl")
    later = successor(device)
    write(later, b"echo new")
    assert read(later, handle) == b"new\n"


def test_it_is_rendered_once_and_then_read_in_pieces(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    handle = open_(namespace, "stats.json")
    later = successor(device)
    first = read(later, handle, 0, 7)
    device()
    rest = in_pieces(later, handle, 7, 50)
    assert json.loads(first + rest)["writes"] == 2


def test_who_has_read_all_finds_the_end_where_it_was(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    handle = open_(namespace, "stats")
    end = len(read(namespace, handle))
    later = successor(device)
    assert read(later, handle, end) == b""
    assert read(later, handle, end + 4096) == b""
    assert device.writes == 1
    assert not later._open


@pytest.mark.parametrize("at", [1, 7])
def test_who_stopped_half_way_cannot_go_on(
    at: int, namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    """It would get the beginning of one report and the end of another."""
    handle = open_(namespace, "stats")
    end = len(read(namespace, handle))
    later = successor(device)
    assert raised(later.read(handle, at, 4096)) == errno.ESTALE
    assert raised(later.read(handle, end - 1, 4096)) == errno.ESTALE
    assert read(later, handle).startswith(b"name swap0")


def test_a_command_can_be_written_to_a_file_that_was_opened_earlier(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    handle = open_(namespace, "ctl", os.O_RDWR)
    later = successor(device)
    assert run(later.write(handle, 0, b"echo done")) == 9
    assert read(later, handle, 9) == b"done\n"
    assert read(later, handle, 0) == b"done\n"


def test_what_was_opened_earlier_is_forgotten_when_it_is_closed(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    handle, unread = open_(namespace, "stats"), open_(namespace, "stats")
    later = successor(device)
    read(later, handle)
    assert later._open
    run(later.release(handle))
    run(later.release(unread))
    assert not later._open


def test_handles_of_two_workers_are_not_the_same(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    later = successor(device)
    mine = {open_(namespace, "stats") for _ in range(20)}
    assert mine.isdisjoint(open_(later, "stats") for _ in range(20))


@pytest.mark.parametrize("generations", [1, 2, 3000])
def test_it_does_not_matter_how_many_workers_there_were_in_between(
    generations: int, namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    handle = open_(namespace, "stats")
    assert read(successor(device, generations), handle)


def test_a_handle_of_this_worker_that_is_closed_is_unknown(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    for each in (namespace, successor(device)):
        handle = open_(each, "stats")
        run(each.release(handle))
        assert raised(each.read(handle, 0, 4096)) == errno.EBADF


def test_a_fault_in_what_is_rendered_anew_is_eio(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    handle = open_(namespace, "stats")
    device.broken = True
    assert raised(successor(device).read(handle, 0, 4096)) == errno.EIO


def test_files_of_earlier_workers_count_as_open(
    namespace: Namespace, device: Changing, successor: Succeed
) -> None:
    """What is rendered stays in locked memory, whoever opened it."""
    handles = [open_(namespace, "mm_stat") for _ in range(200)]
    later = successor(device)
    for handle in handles:
        read(later, handle)
    for _ in range(56):
        open_(later, "mm_stat")
    code = raised(later.open(inode(later, "mm_stat"), FlagT(os.O_RDONLY), CTX))
    assert code == errno.EMFILE


def test_what_is_kept_for_open_files_is_bounded(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes too: it is locked memory, and a history is long."""
    handle = open_(namespace, "stats")
    size = len(read(namespace, handle))
    monkeypatch.setattr(module, "_MAX_KEPT", 3 * size + 10)
    twins = [open_(namespace, "stats") for _ in range(2)]
    refused = namespace.open(inode(namespace, "stats"), FlagT(os.O_RDONLY), CTX)
    assert raised(refused) == errno.EMFILE
    run(namespace.release(twins[0]))
    assert len(read(namespace, open_(namespace, "stats"))) == size


def test_those_who_read_the_history_at_once_read_the_same(
    namespace: Namespace, device: Changing
) -> None:
    """It is rendered once, and is there once, however many have it open."""
    asked, opened = inode(namespace, "history.json"), 99

    async def open_all() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(opened):
                nursery.start_soon(namespace.open, asked, FlagT(os.O_RDONLY), CTX)

    run(open_all())
    assert len(namespace._open) == opened
    assert len({id(file.content) for file in namespace._open.values()}) == 1
    assert device.writes == 1


def history_each_time(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch, most: int
) -> tuple[InodeT, int]:
    """Have it rendered anew for everybody, and only so many kept: its inode, and its size."""
    render = namespace._history.render

    async def anew() -> bytes:
        return bytes(bytearray(await render()))

    monkeypatch.setattr(namespace._history, "render", anew)
    size = len(run(render()))
    monkeypatch.setattr(module, "_MAX_KEPT", most * size + size // 2)
    return inode(namespace, "history.json"), size


def test_who_opens_while_others_do_gets_no_more_than_there_is_room_for(
    namespace: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, _ = history_each_time(namespace, monkeypatch, most=3)
    refused = []

    async def open_one() -> None:
        try:
            await namespace.open(asked, FlagT(os.O_RDONLY), CTX)
        except FUSEError as error:
            refused.append(error.errno)

    async def open_all() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(open_one)

    run(open_all())
    assert len(namespace._open) == 3
    assert refused == [errno.EMFILE] * 7


def test_nor_who_reads_what_was_opened_earlier(
    namespace: Namespace,
    device: Changing,
    monkeypatch: pytest.MonkeyPatch,
    successor: Succeed,
) -> None:
    handles = [open_(namespace, "history.json") for _ in range(10)]
    later = successor(device)
    history_each_time(later, monkeypatch, most=3)
    refused = []

    async def read_one(handle: FileHandleT) -> None:
        try:
            await later.read(handle, 0, 4096)
        except FUSEError as error:
            refused.append(error.errno)

    async def read_all() -> None:
        async with trio.open_nursery() as nursery:
            for handle in handles:
                nursery.start_soon(read_one, handle)

    run(read_all())
    assert len(later._open) == 3
    assert refused == [errno.EMFILE] * 7


# --- Faults of ours --------------------------------------------------------------------
#
# An exception that is no FUSEError ends pyfuse3.main, then the worker's nursery, and then
# the device with all that is swapped out.


def test_a_fault_in_a_report_is_eio(namespace: Namespace, device: Changing) -> None:
    device.broken = True
    assert raised(namespace.open(inode(namespace, "stats"), FlagT(os.O_RDONLY), CTX)) == errno.EIO


def test_a_fault_in_a_report_is_eio_for_statfs_too(namespace: Namespace, device: Changing) -> None:
    device.broken = True
    assert raised(namespace.statfs(CTX)) == errno.EIO


def test_a_fault_in_a_command_is_eio(namespace: Namespace) -> None:
    handle = open_(namespace, "ctl", os.O_WRONLY)
    assert raised(namespace.write(handle, 0, b"fail\n")) == errno.EIO
