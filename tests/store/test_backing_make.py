"""Making a backing file: its room is there, it holds zeros, and a failure leaves nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from types import SimpleNamespace

import pytest

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store import backing_make
from vswap.store.backing_file import FileBacking
from vswap.store.backing_make import LABEL_SIZE, fill, is_fuse, make_file

MOUNTS = """\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 0:31 / {point} rw,relatime shared:7 - {fstype} {fstype} rw
"""


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A directory on a file system that will do."""
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_DIRECT))
        backing_make.check_path(str(probe))
    except (OSError, UserError) as error:
        pytest.skip(f"the temporary directory cannot hold a backing: {error}")
    probe.unlink()
    return tmp_path


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on a FUSE file system seems to be mounted on the temporary directory's `in it`."""
    _seem_mounted(monkeypatch, tmp_path, "fuse.vswap")


def _seem_mounted(monkeypatch: pytest.MonkeyPatch, folder: Path, fstype: str) -> None:
    table = folder / "mountinfo"
    table.write_text(MOUNTS.format(point=f"{folder}/in\\040it", fstype=fstype))
    monkeypatch.setattr(backing_make, "_MOUNTINFO", table)


def test_a_file_is_private_allocated_and_zeros(disk: Path) -> None:
    path = disk / "backing"
    make_file(str(path), 2 * SEGMENT_SIZE)
    found = path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_size == LABEL_SIZE + 2 * SEGMENT_SIZE
    assert found.st_blocks * 512 >= found.st_size
    assert path.read_bytes() == bytes(found.st_size)


def test_what_is_made_can_be_opened(disk: Path) -> None:
    path = str(disk / "backing")
    make_file(path, 2 * SEGMENT_SIZE)
    backing = FileBacking.open(path, 2 * SEGMENT_SIZE)
    assert backing.size == 2 * SEGMENT_SIZE
    backing.close()


def test_all_of_it_is_written_and_not_only_allocated(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[tuple[int, int]] = []
    real = os.pwritev

    def pwritev(fd: int, buffers: list[memoryview], offset: int) -> int:
        assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
        written.append((offset, len(buffers[0])))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    make_file(str(disk / "backing"), 2 * SEGMENT_SIZE)
    assert written == [(n * SEGMENT_SIZE, SEGMENT_SIZE) for n in range(3)]


@pytest.mark.parametrize("size", [1, SEGMENT_SIZE - 1, SEGMENT_SIZE])
def test_a_size_is_rounded_up_to_whole_segments(disk: Path, size: int) -> None:
    path = disk / "backing"
    make_file(str(path), size)
    assert path.stat().st_size == LABEL_SIZE + SEGMENT_SIZE


@pytest.mark.parametrize("size", [0, -1])
def test_a_file_of_no_size_is_refused(disk: Path, size: int) -> None:
    with pytest.raises(UserError, match="more than zero"):
        make_file(str(disk / "backing"), size)
    assert list(disk.iterdir()) == []


def test_progress_ends_with_the_size_asked_for(disk: Path) -> None:
    told: list[int] = []
    make_file(str(disk / "backing"), 3 * SEGMENT_SIZE, told.append)
    assert told == [SEGMENT_SIZE, 2 * SEGMENT_SIZE, 3 * SEGMENT_SIZE]


def test_what_is_there_already_is_left_alone(disk: Path) -> None:
    path = disk / "backing"
    path.write_bytes(b"mine")
    with pytest.raises(UserError, match="exists already; attach it as it is, or remove it"):
        make_file(str(path), SEGMENT_SIZE)
    assert path.read_bytes() == b"mine"


def test_a_link_to_nowhere_is_not_followed(disk: Path) -> None:
    link = disk / "backing"
    link.symlink_to(disk / "elsewhere")
    with pytest.raises(UserError, match="exists already"):
        make_file(str(link), SEGMENT_SIZE)
    assert [path.name for path in disk.iterdir()] == ["backing"]
    assert link.is_symlink()


def test_a_directory_that_is_not_there_is_told(disk: Path) -> None:
    with pytest.raises(UserError, match="cannot be made: No such file or directory"):
        make_file(str(disk / "none" / "backing"), SEGMENT_SIZE)


def test_too_little_room_is_told_before_anything_is_made(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(f_bavail=5 << 8, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: free)
    with pytest.raises(UserError, match="needs 6 MiB, and its file system has 5 MiB free"):
        make_file(str(disk / "backing"), 5 * SEGMENT_SIZE)
    assert list(disk.iterdir()) == []


def test_a_file_for_which_the_room_just_suffices_is_made(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(f_bavail=2 << 8, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda _path: free)
    make_file(str(disk / "backing"), SEGMENT_SIZE)
    assert (disk / "backing").stat().st_size == 2 * SEGMENT_SIZE


def test_an_interruption_leaves_no_file(disk: Path) -> None:
    def interrupt(done: int) -> None:
        assert len(list(disk.iterdir())) == 1
        if done == 2 * SEGMENT_SIZE:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_file(str(disk / "backing"), 3 * SEGMENT_SIZE, interrupt)
    assert list(disk.iterdir()) == []


@pytest.mark.parametrize("call", ["posix_fallocate", "pwritev", "fsync"])
def test_a_failure_leaves_no_file(disk: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    def fail(*_args: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(UserError, match="cannot be filled: No space left on device"):
        make_file(str(disk / "backing"), SEGMENT_SIZE)
    assert list(disk.iterdir()) == []


def test_no_direct_io_leaves_no_file(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fcntl_(_fd: int, command: int, *_arg: int) -> int:
        if command == fcntl.F_SETFL:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return 0

    monkeypatch.setattr(fcntl, "fcntl", fcntl_)
    with pytest.raises(UserError, match="without O_DIRECT"):
        make_file(str(disk / "backing"), SEGMENT_SIZE)
    assert list(disk.iterdir()) == []


def test_a_failure_closes_the_file(disk: Path) -> None:
    def fail(_done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_file(str(disk / "backing"), SEGMENT_SIZE, fail)
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert [link for link in links if link.startswith(str(disk))] == []


def test_no_device_may_have_it_before_it_is_full(disk: Path) -> None:
    path = str(disk / "backing")

    def attach(_done: int) -> None:
        with pytest.raises(UserError, match="used by another device"):
            FileBacking.open(path)

    make_file(path, SEGMENT_SIZE, attach)
    FileBacking.open(path).close()


@pytest.mark.parametrize("fstype", ["tmpfs", "ramfs", "hugetlbfs"])
def test_memory_is_no_place_for_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch, fstype: str
) -> None:
    _seem_mounted(monkeypatch, disk, fstype)
    (disk / "in it").mkdir()
    with pytest.raises(UserError, match=f"is on {fstype}, which is memory itself"):
        make_file(str(disk / "in it" / "backing"), SEGMENT_SIZE)
    assert list((disk / "in it").iterdir()) == []


@pytest.mark.parametrize("fstype", ["fuse", "fuseblk", "fuse.vswap", "fuse.sshfs"])
def test_a_fuse_mount_is_no_place_for_it(
    disk: Path, monkeypatch: pytest.MonkeyPatch, fstype: str
) -> None:
    _seem_mounted(monkeypatch, disk, fstype)
    (disk / "in it").mkdir()
    with pytest.raises(UserError, match=f"is on {fstype}, served by a process"):
        make_file(str(disk / "in it" / "backing"), SEGMENT_SIZE)
    assert list((disk / "in it").iterdir()) == []


def test_a_file_system_is_known_by_the_descriptor_too(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads through a link to a directory does not tell."""
    fd = os.open(disk, os.O_RDONLY)
    number = Path(f"/proc/self/fdinfo/{fd}").read_text().split("mnt_id:")[1].split()[0]
    os.close(fd)
    table = disk / "mountinfo"
    table.write_text(f"{number} 0 0:31 / /elsewhere rw - tmpfs tmpfs rw\n")
    monkeypatch.setattr(backing_make, "_MOUNTINFO", table)
    with pytest.raises(UserError, match="is on tmpfs, which is memory itself"):
        make_file(str(disk / "backing"), SEGMENT_SIZE)
    assert list(disk.iterdir()) == [table]


@pytest.mark.usefixtures("mounted")
@pytest.mark.parametrize(
    ("path", "inside"),
    [
        ("in it", True),
        ("in it/backing", True),
        ("in it/../in it/backing", True),
        ("in it/../backing", False),
        ("in it too", False),
        ("backing", False),
    ],
)
def test_a_fuse_mount_is_known_by_the_path(tmp_path: Path, path: str, inside: bool) -> None:
    assert is_fuse(f"{tmp_path}/{path}") is inside


def test_of_two_mounts_at_one_point_the_later_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _seem_mounted(monkeypatch, tmp_path, "fuse.vswap")
    table = tmp_path / "mountinfo"
    table.write_text(f"{table.read_text()}3 2 8:2 / {tmp_path}/in\\040it rw - xfs /dev/sda2 rw\n")
    assert not is_fuse(f"{tmp_path}/in it/backing")


def test_a_short_write_of_zeros_is_an_error(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda _fd, _buffers, _offset: SEGMENT_SIZE - 512)
    with (disk / "file").open("wb") as file, pytest.raises(OSError, match="short write"):
        fill(file.fileno(), 0, SEGMENT_SIZE)
