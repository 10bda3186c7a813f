"""What outlives a worker, in the process that keeps it: real memfds, pipes and mounts."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vswap import libc, memfile
from vswap.geometry import PAGE_SIZE
from vswapd.config import Settings
from vswapd.fusemount import open_and_mount
from vswapd.held import Bundle, Held, Record, ranges_in_memory

SIZE = 64 * PAGE_SIZE
RECORD = Record(
    settings=Settings("m", "/mnt/m", 64 << 20, threads=2).to_json(),
    point="/mnt/m",
    mounted="0:39",
    init="68000000",
    reply="50000000",
    region=1,
    signs=(4016, 4016 + 4096),
    restarts=3,
)

needs_device = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0,
    reason="mounting needs /dev/fuse and root",
)

MakeFd = Callable[[], int]


@pytest.fixture
def opened() -> Iterator[list[int]]:
    """Descriptors that are closed afterwards, if nobody has done so."""
    fds: list[int] = []
    yield fds
    for fd in fds:
        with suppress(OSError):
            os.close(fd)


@pytest.fixture
def memfd(opened: list[int]) -> MakeFd:
    """Makes memory of `SIZE` bytes, all of it a hole."""

    def make() -> int:
        fd = os.memfd_create("vswap-test")
        os.ftruncate(fd, SIZE)
        opened.append(fd)
        return fd

    return make


@pytest.fixture
def bundle(memfd: MakeFd, opened: list[int]) -> Bundle:
    """A state of three regions, and pipes for connection and backing."""
    opened += [*os.pipe(), *os.pipe()]
    fuse, _, backing, _ = opened
    state = [(f"state{number}", memfd()) for number in range(3)]
    return [*state, ("fuse", fuse), ("backing", backing)]


def allocated(fd: int) -> int:
    """Pages of memory behind a memfd."""
    return os.fstat(fd).st_blocks * 512 // PAGE_SIZE


# --- The record ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        Record(RECORD.settings, "/mnt/m"),
        Record(RECORD.settings, "/mnt/\udcff \n", backing="/disk/\udcfe"),
    ],
)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    line = record.to_json()
    assert "\n" not in line
    assert Record.from_json(line) == record
    assert Record.from_json(line.encode()) == record


def test_the_settings_in_a_record_are_plain_values() -> None:
    assert RECORD.values["name"] == "m"
    assert RECORD.values["threads"] == 2


@pytest.mark.parametrize(
    "text",
    ["", "{", '{"settings": "{}"', '{"settings": "{}", "signs": []}', '{"signs": [], "odd": 1}'],
)
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises((ValueError, TypeError)):
        Record.from_json(text)


# --- The bundle ------------------------------------------------------------------------


def test_a_bundle_is_the_same_device_elsewhere(bundle: Bundle) -> None:
    held = Held.of(Record(RECORD.settings, "/mnt/m", backing="/file"), bundle)
    assert held.state == [fd for name, fd in bundle if name.startswith("state")]
    assert (held.connection, held.backing) == (dict(bundle)["fuse"], dict(bundle)["backing"])
    assert held.bundle() == bundle
    again = Held.of(held.record, held.bundle())
    assert (again.record, again.bundle()) == (held.record, bundle)


def test_the_history_goes_with_it_and_is_no_part_of_the_state(
    memfd: MakeFd, bundle: Bundle
) -> None:
    history = memfd()
    held = Held.of(Record(RECORD.settings, "/mnt/m"), [*bundle, ("history", history)])
    assert (held.history, history in held.state) == (history, False)
    assert ("history", history) in held.bundle()
    inode, other = os.fstat(history).st_ino, memfd()
    held.hold_history(other)
    assert held.history == other
    assert inode not in [
        each.stat().st_ino for each in Path("/proc/self/fd").iterdir() if each.exists()
    ]


def test_the_order_of_a_bundle_does_not_matter(bundle: Bundle) -> None:
    held = Held.of(Record(RECORD.settings, "/mnt/m", backing="/file"), bundle[::-1])
    assert held.bundle() == bundle


def test_more_than_ten_regions_keep_their_order(memfd: MakeFd, bundle: Bundle) -> None:
    state = [(f"state{number}", memfd()) for number in range(12)]
    held = Held.of(
        Record(RECORD.settings, "/mnt/m"), [*state[::-1], ("fuse", dict(bundle)["fuse"])]
    )
    assert held.state == [fd for _, fd in state]


def test_a_device_without_a_backing_has_none(bundle: Bundle) -> None:
    without = [each for each in bundle if each[0] != "backing"]
    held = Held.of(Record(RECORD.settings, "/mnt/m"), without)
    assert held.backing is None
    assert held.bundle() == without


@pytest.mark.parametrize(
    "missing",
    [
        pytest.param({"fuse"}, id="the connection"),
        pytest.param({"backing"}, id="the backing"),
        pytest.param({"state0", "state1", "state2"}, id="the state"),
        pytest.param({"state0"}, id="the state's header"),
        pytest.param({"state1"}, id="a region of the state"),
    ],
)
def test_missing_descriptors_are_refused(missing: set[str], bundle: Bundle) -> None:
    record = Record(RECORD.settings, "/mnt/m", backing="/file")
    with pytest.raises(ValueError, match=r"device needs|missing"):
        Held.of(record, [(name, fd) for name, fd in bundle if name not in missing])


def test_a_backing_that_was_only_stored_yet_is_let_go(bundle: Bundle) -> None:
    """It is recorded before its worker is told that it is held, so nothing is on it."""
    held = Held.of(Record(RECORD.settings, "/mnt/m"), bundle)
    assert held.backing is None
    assert not is_open(dict(bundle)["backing"])


def test_a_device_that_is_new_has_no_connection_yet(memfd: MakeFd) -> None:
    held = Held(Record(RECORD.settings, "/mnt/m"), [memfd()])
    assert [name for name, _ in held.bundle()] == ["state0"]


# --- The backing -----------------------------------------------------------------------


def is_open(fd: int) -> bool:
    return Path(f"/proc/self/fd/{fd}").exists()


def test_a_backing_is_held_and_dropped(memfd: MakeFd) -> None:
    held = Held(Record(RECORD.settings, "/mnt/m"), [memfd()])
    fd = memfd()
    held.hold_backing(fd, "/file")
    assert (held.backing, held.record.backing, held.bundle()[-1]) == (fd, "/file", ("backing", fd))
    assert is_open(fd)
    held.drop_backing()
    assert (held.backing, held.record.backing) == (None, None)
    assert not is_open(fd)


def test_dropping_what_is_not_held_is_nothing(memfd: MakeFd) -> None:
    held = Held(Record(RECORD.settings, "/mnt/m"), [memfd()])
    held.drop_backing()
    assert [name for name, _ in held.bundle()] == ["state0"]


def test_another_backing_takes_the_place_of_the_first(memfd: MakeFd) -> None:
    held = Held(Record(RECORD.settings, "/mnt/m"), [memfd()])
    first, second = memfd(), memfd()
    held.hold_backing(first, "/first")
    held.hold_backing(second, "/second")
    assert (held.backing, held.record.backing) == (second, "/second")
    assert not is_open(first)


# --- What is in the receive buffers ----------------------------------------------------


def test_signs_are_what_others_have_written_there(memfd: MakeFd) -> None:
    header, buffers = memfd(), memfd()
    held = Held(RECORD, [header, buffers])
    assert held.signs() == (bytes(16), bytes(16))
    os.pwrite(buffers, bytes(range(20)), 4016)
    os.pwrite(buffers, bytes(range(100, 120)), 4016 + 4096)
    assert held.signs() == (bytes(range(16)), bytes(range(100, 116)))


# --- Keeping memory --------------------------------------------------------------------


def write_pages(fd: int, *pages: int) -> None:
    for page in pages:
        os.pwrite(fd, bytes([1]) * PAGE_SIZE, page * PAGE_SIZE)


@pytest.mark.parametrize(
    ("pages", "ranges"),
    [
        ([], []),
        ([0], [(0, 1)]),
        ([63], [(63, 64)]),
        ([3, 4, 5, 9], [(3, 6), (9, 10)]),
        (range(64), [(0, 64)]),
    ],
)
def test_what_has_memory_is_found_and_nothing_else_gets_any(
    pages: list[int], ranges: list[tuple[int, int]], memfd: MakeFd
) -> None:
    fd = memfd()
    write_pages(fd, *pages)
    found = [(start // PAGE_SIZE, end // PAGE_SIZE) for start, end in ranges_in_memory(fd, SIZE)]
    assert found == ranges
    assert allocated(fd) == len(pages)


def test_a_memory_that_is_not_open_is_an_error() -> None:
    """And not an empty one."""
    with pytest.raises(OSError, match="Bad file descriptor"):
        list(ranges_in_memory(-1, SIZE))


def mapped_here(held: Held, number: int) -> set[int]:
    """The pages of a region that are in this process's page tables, and so would be locked."""
    address = held._residents[number]._address
    with Path("/proc/self/pagemap").open("rb", buffering=0) as pagemap:
        entries = os.pread(pagemap.fileno(), SIZE // PAGE_SIZE * 8, address // PAGE_SIZE * 8)
    present = memoryview(entries).cast("Q")
    return {page for page, entry in enumerate(present) if entry >> 63}


def test_what_has_memory_is_mapped_and_holes_stay_holes(memfd: MakeFd) -> None:
    fds = [memfd(), memfd()]
    held = Held(RECORD, fds)
    write_pages(fds[0], 2, 3, 40)
    write_pages(fds[1], 0)
    assert mapped_here(held, 0) == mapped_here(held, 1) == set()
    held.keep_resident()
    assert (mapped_here(held, 0), mapped_here(held, 1)) == ({2, 3, 40}, {0})
    assert [allocated(fd) for fd in fds] == [3, 1]


def test_so_is_the_history(memfd: MakeFd) -> None:
    """A worker that wants it back from swap, with the interpreter's lock held, waits for itself."""
    held = Held(RECORD, [memfd(), memfd()])
    for fd in (memfd(), memfd()):
        write_pages(fd, 5)
        held.hold_history(fd)
        held.keep_resident()
        assert mapped_here(held, 2) == {5}


def test_what_nobody_can_swap_out_need_not_be_mapped(opened: list[int]) -> None:
    """And must not be waited for."""
    fd = memfile.create("test", SIZE, resident=True)
    opened.append(fd)
    if memfile.is_swappable(fd):
        pytest.skip("there is no such memory here (Linux 6.4, root)")
    held = Held(RECORD, [fd])
    write_pages(fd, 1)
    held.keep_resident()
    assert mapped_here(held, 0) == set()


def test_what_has_come_since_is_mapped_the_next_time(memfd: MakeFd) -> None:
    fd = memfd()
    held = Held(RECORD, [fd, memfd()])
    write_pages(fd, 1)
    held.keep_resident()
    write_pages(fd, 60)
    held.keep_resident()
    assert mapped_here(held, 0) == {1, 60}
    assert allocated(fd) == 2


def test_memory_given_back_is_not_taken_again(memfd: MakeFd) -> None:
    fd = memfd()
    held = Held(RECORD, [fd, memfd()])
    write_pages(fd, *range(10))
    held.keep_resident()
    libc.punch_hole(fd, 0, 9 * PAGE_SIZE)
    held.keep_resident()
    assert mapped_here(held, 0) == {9}
    assert allocated(fd) == 1


def test_what_moves_without_growing_is_mapped_too(memfd: MakeFd) -> None:
    """As much memory as before may be other memory: a segment was cleaned, and another begun."""
    fd = memfd()
    held = Held(RECORD, [fd, memfd()])
    write_pages(fd, 1)
    held.keep_resident()
    libc.punch_hole(fd, PAGE_SIZE, PAGE_SIZE)
    write_pages(fd, 60)
    for _ in range(30):  # seconds, in which it need not be looked at each time
        held.keep_resident()
    assert mapped_here(held, 0) == {60}


def test_what_is_kept_does_not_get_into_core_dumps(memfd: MakeFd) -> None:
    fd = memfd()
    held = Held(RECORD, [fd, memfd()])
    smaps = Path("/proc/self/smaps").read_text()
    start = f"{held._residents[0]._address:x}-"
    flags = next(
        line
        for line in smaps[smaps.index(f"\n{start}") :].splitlines()
        if line.startswith("VmFlags")
    )
    assert "dd" in flags.split()


# --- The connection --------------------------------------------------------------------


def connected(memfd: MakeFd, fd: int) -> Held:
    held = Held(RECORD, [memfd(), memfd()])
    held.connection = fd
    return held


def test_a_request_that_waits_is_seen_and_left(memfd: MakeFd) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        held = connected(memfd, theirs.fileno())
        assert (held.has_waiting(), held.is_closed()) == (False, False)
        ours.send(b"request")
        assert (held.has_waiting(), held.is_closed()) == (True, False)
        assert theirs.recv(100) == b"request"
        assert not held.has_waiting()


def test_the_end_of_a_pipe_is_the_end(memfd: MakeFd) -> None:
    ours, theirs = os.pipe()
    held = connected(memfd, ours)
    assert not held.is_closed()
    os.close(theirs)
    assert held.is_closed()
    os.close(ours)
    assert held.is_closed()


@pytest.mark.mount
@needs_device
def test_a_mount_is_open_until_it_is_unmounted(memfd: MakeFd, tmp_path: Path) -> None:
    fd = open_and_mount(str(tmp_path), "name", as_user=False)
    try:
        held = connected(memfd, fd)
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(10_000)  # INIT
        assert (held.has_waiting(), held.is_closed()) == (True, False)
        os.read(fd, 1 << 20)
        assert (held.has_waiting(), held.is_closed()) == (False, False)
        libc.umount2(str(tmp_path), libc.MNT_DETACH)
        assert held.is_closed()
    finally:
        with suppress(OSError):
            libc.umount2(str(tmp_path), libc.MNT_DETACH)
        os.close(fd)
