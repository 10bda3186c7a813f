"""Memory files of both sorts: those that nobody can swap out, and memfds."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from descriptor_support import open_descriptors

from vswap import libc, memfile

PAGE = mmap.PAGESIZE
MakeFile = Callable[..., int]


def refuse(*_args: object, code: int = errno.EPERM) -> int:
    raise OSError(code, "refused")


@pytest.fixture(params=[True, False], ids=["resident", "memfd"])
def create(request: pytest.FixtureRequest) -> Iterator[MakeFile]:
    """Makes files, and closes them."""
    made: list[int] = []

    def make(name: str = "test", size: int = 0) -> int:
        made.append(memfile.create(name, size, resident=request.param))
        return made[-1]

    yield make
    for fd in made:
        os.close(fd)


def test_a_new_file_is_zeros_that_take_no_memory(create: MakeFile) -> None:
    fd = create(size=1 << 36)
    assert (os.fstat(fd).st_size, os.fstat(fd).st_blocks) == (1 << 36, 0)
    assert os.pread(fd, 100, 1 << 35) == bytes(100)


def test_memory_that_was_written_is_given_back_by_a_hole(create: MakeFile) -> None:
    fd = create(size=64 * PAGE)
    os.pwrite(fd, b"x" * PAGE, 3 * PAGE)
    assert os.lseek(fd, 0, os.SEEK_DATA) == 3 * PAGE
    assert os.lseek(fd, 3 * PAGE, os.SEEK_HOLE) == 4 * PAGE
    assert os.fstat(fd).st_blocks * 512 == PAGE
    libc.punch_hole(fd, 3 * PAGE, PAGE)
    assert os.fstat(fd).st_blocks == 0
    assert os.pread(fd, 1, 3 * PAGE) == b"\0"


def test_who_maps_it_shares_it(create: MakeFile) -> None:
    fd = create(size=PAGE)
    with mmap.mmap(fd, PAGE) as one, mmap.mmap(fd, PAGE) as other:
        one[:4] = b"page"
        assert other[:4] == os.pread(fd, 4, 0) == b"page"


def test_its_name_is_seen_where_it_is_mapped(create: MakeFile) -> None:
    with mmap.mmap(create("named-so", PAGE), PAGE):
        assert "vswap-named-so (deleted)" in Path("/proc/self/maps").read_text()


def test_two_of_a_name_are_two_files(create: MakeFile) -> None:
    one, other = create(size=PAGE), create(size=PAGE)
    os.pwrite(one, b"x", 0)
    assert os.pread(other, 1, 0) == b"\0"


def test_it_has_no_name_by_which_another_could_open_it(create: MakeFile) -> None:
    assert os.fstat(create()).st_nlink == 0


def test_a_program_that_is_started_does_not_inherit_it(create: MakeFile) -> None:
    assert not os.get_inheritable(create())


def test_nothing_is_left_but_the_file(create: MakeFile) -> None:
    before = open_descriptors()
    create()
    assert open_descriptors() == before + 1


def test_this_kernel_has_resident_ones() -> None:
    """From 6.4 on, and for root: or nobody would notice that there are none any more."""
    if os.geteuid() or not is_first_namespace():
        pytest.skip("needs the machine's root")
    version = tuple(int(part) for part in os.uname().release.split(".")[:2])
    fd = memfile.create("test", PAGE, resident=True)
    assert memfile.is_swappable(fd) == (version < (6, 4))
    os.close(fd)


def is_first_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def test_a_memfd_is_what_there_is_without_the_right_to_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(libc, "fsopen", refuse)
    fd = memfile.create("test", PAGE, resident=True)
    assert memfile.is_swappable(fd)
    os.close(fd)


def test_what_is_no_lack_of_the_kernel_s_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose state may be swapped out is not made by chance."""
    monkeypatch.setattr(libc, "fsopen", partial(refuse, code=errno.ENFILE))
    before = open_descriptors()
    with pytest.raises(OSError, match="refused"):
        memfile.create("test", PAGE, resident=True)
    assert open_descriptors() == before


def test_a_size_that_cannot_be_leaves_nothing() -> None:
    before = open_descriptors()
    with pytest.raises(OSError, match="Invalid argument"):
        memfile.create("test", -1)
    assert open_descriptors() == before


def test_an_older_kernel_leaves_nothing_half_done(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no `noswap`; what was opened until then is closed."""
    if os.geteuid():
        pytest.skip("needs root: a file system")
    config = libc.fsconfig

    def of_old(fd: int, command: int, key: str | None = None, value: str | None = None) -> None:
        config(fd, command, "no-such-option" if key == "noswap" else key, value)

    monkeypatch.setattr(libc, "fsconfig", of_old)
    before = open_descriptors()
    fd = memfile.create("test", PAGE, resident=True)
    assert open_descriptors() == before + 1
    assert memfile.is_swappable(fd)
    os.close(fd)
