"""A backing on a block device, and the files that only root can make unfit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from swap_support import run

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store import backing_make
from vswap.store.backing import BLOCK, aligned
from vswap.store.backing_file import FileBacking
from vswap.store.backing_make import LABEL_SIZE, make_file

SECONDS = 30.0


@pytest.fixture
def below(tmp_path: Path) -> Path:
    """The file of three segments and a MiB under `loop`."""
    path = tmp_path / "below"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, LABEL_SIZE + 3 * SEGMENT_SIZE)
    return path


@pytest.fixture
def loop(below: Path) -> Iterator[Path]:
    """A loop device over `below`."""
    done = run("losetup", "--find", "--show", str(below), timeout=SECONDS)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr.strip()}")
    device = Path(done.stdout.strip())
    try:
        yield device
    finally:
        run("losetup", "--detach", str(device), timeout=SECONDS)


def refusal(path: Path, size: int | None = None) -> str:
    with pytest.raises(UserError) as refused:
        FileBacking.open(str(path), size)
    assert str(refused.value).startswith(f"{path} ")
    return str(refused.value).removeprefix(f"{path} ")


def test_a_device_keeps_segments_and_the_note(loop: Path, below: Path) -> None:
    data, found = aligned(SEGMENT_SIZE), aligned(SEGMENT_SIZE)
    data[:] = b"x" * SEGMENT_SIZE
    backing = FileBacking.open(str(loop), 3 * SEGMENT_SIZE)
    try:
        assert backing.size == 3 * SEGMENT_SIZE
        backing.write(2 * SEGMENT_SIZE, data)
        backing.save_note(b"note")
        backing.read(2 * SEGMENT_SIZE, found)
        assert found == data
    finally:
        backing.close()
    backing = FileBacking.open(str(loop))
    try:
        assert backing.load_note() == b"note"
    finally:
        backing.close()
    assert below.stat().st_size == LABEL_SIZE + 3 * SEGMENT_SIZE


def test_a_link_to_a_device_is_followed(loop: Path, tmp_path: Path) -> None:
    link = tmp_path / "by-id"
    link.symlink_to(loop)
    backing = FileBacking.open(str(link))
    try:
        assert backing.name == str(link)
        assert backing.size == 3 * SEGMENT_SIZE
    finally:
        backing.close()


def test_a_device_that_is_in_use_is_refused(loop: Path) -> None:
    fd = os.open(loop, os.O_RDONLY | os.O_EXCL)  # as a mount or a swap area holds it
    try:
        assert refusal(loop) == "is in use (mounted, or part of something)"
    finally:
        os.close(fd)
    FileBacking.open(str(loop)).close()


def test_a_device_is_for_one_backing_at_a_time(loop: Path) -> None:
    backing = FileBacking.open(str(loop))
    try:
        assert refusal(loop).startswith("is in use")
    finally:
        backing.close()


def test_a_device_that_is_too_small_is_refused(loop: Path) -> None:
    text = refusal(loop, 4 * SEGMENT_SIZE)
    assert f"it has {4 * SEGMENT_SIZE} bytes and {5 * SEGMENT_SIZE} are needed" in text


@pytest.mark.parametrize("tool", [("mkswap",), ("mkfs.ext4", "-q")])
def test_a_device_that_holds_something_is_refused(loop: Path, tool: tuple[str, ...]) -> None:
    done = run(*tool, str(loop), timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert refusal(loop).startswith("holds something else")


def test_a_read_only_device_is_refused(loop: Path) -> None:
    try:
        assert run("blockdev", "--setro", str(loop), timeout=SECONDS).returncode == 0
        assert refusal(loop) == f"is read-only; `blockdev --setrw {loop}`, or choose another device"
    finally:  # it would stay so for whoever has the loop device next
        assert run("blockdev", "--setrw", str(loop), timeout=SECONDS).returncode == 0
    FileBacking.open(str(loop)).close()


def test_a_loop_device_over_a_fuse_mount_is_refused(
    loop: Path, below: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would be one of our own, or one of another process's that can wait for memory."""
    table = below.with_name("mountinfo")
    table.write_text(f"1 0 0:31 / {below.parent} rw - fuse.vswap swap rw\n")
    monkeypatch.setattr(backing_make, "_MOUNTINFO", table)
    assert refusal(loop).startswith(f"(over {below}) is on fuse.vswap")


def test_a_device_grows_when_it_has_been_made_larger(loop: Path, below: Path) -> None:
    backing = FileBacking.open(str(loop))
    data = aligned(BLOCK)
    try:
        with pytest.raises(UserError, match="is too small"):
            backing.grow(5 * SEGMENT_SIZE)
        assert backing.size == 3 * SEGMENT_SIZE
        with below.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, LABEL_SIZE + 6 * SEGMENT_SIZE)
        assert run("losetup", "--set-capacity", str(loop), timeout=SECONDS).returncode == 0
        with pytest.raises(OSError, match="beyond the end"):
            backing.write(5 * SEGMENT_SIZE, data)
        backing.grow(5 * SEGMENT_SIZE)
        assert backing.size == 6 * SEGMENT_SIZE
        backing.write(5 * SEGMENT_SIZE, data)
        with pytest.raises(UserError, match="does not shrink"):
            backing.grow(5 * SEGMENT_SIZE)
    finally:
        backing.close()


def test_a_file_that_is_swapped_on_is_refused(tmp_path: Path) -> None:
    """The kernel lets it be opened for writing, but its signature is known."""
    path = tmp_path / "swap"
    make_file(str(path), SEGMENT_SIZE)
    assert run("mkswap", str(path), timeout=SECONDS).returncode == 0
    done = run("swapon", str(path), timeout=SECONDS)
    if done.returncode:
        pytest.skip(f"no swap file here: {done.stderr.strip()}")
    try:
        assert refusal(path).startswith("holds something else")
    finally:
        assert run("swapoff", str(path), timeout=SECONDS).returncode == 0
