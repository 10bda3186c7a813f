"""The directory that the mount shows, as programs see it."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import stat
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from mount.harness import PAGE, REFUSALS, SIZE, Start, Worker, close, errno_of, eventually

pytestmark = pytest.mark.mount

RENDERED = ["stats", "stats.json", "mm_stat", "io_stat", "bd_stat", "metrics", "history.json"]
NOBODY = 65534


def shell(
    script: str, at: Path, user: int | None = None, group: int | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script],
        cwd=at,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
        user=user,
        group=group,
    )


# --- Names and attributes --------------------------------------------------------------


def test_listing(shared: Worker) -> None:
    names = sorted(path.name for path in shared.mount.iterdir())
    assert names == sorted(["swap", "ctl", *RENDERED])


def test_listing_is_the_same_from_the_middle_on(shared: Worker) -> None:
    """Two listings of one open directory, as rewinddir(3) makes them."""
    fd = os.open(shared.mount, os.O_RDONLY | os.O_DIRECTORY)
    try:
        assert [os.listdir(fd), os.listdir(fd)] == [os.listdir(shared.mount)] * 2  # noqa: PTH208
    finally:
        os.close(fd)


@pytest.mark.parametrize(
    ("name", "mode", "size"),
    [("swap", 0o600, SIZE), ("ctl", 0o600, 0), *((name, 0o444, 0) for name in RENDERED)],
)
def test_modes_and_sizes(name: str, mode: int, size: int, shared: Worker) -> None:
    found = (shared.mount / name).stat()
    assert stat.S_ISREG(found.st_mode)
    assert (stat.S_IMODE(found.st_mode), found.st_size) == (mode, size)
    assert (found.st_uid, found.st_gid, found.st_nlink) == (os.geteuid(), os.getegid(), 1)


def test_the_mount_s_root_is_a_directory_nobody_else_writes_to(shared: Worker) -> None:
    found = shared.mount.stat()
    assert stat.S_ISDIR(found.st_mode)
    assert stat.S_IMODE(found.st_mode) == 0o755


@pytest.mark.parametrize("name", ["swap", "ctl", "stats"])
def test_an_open_file_has_the_same_attributes(name: str, shared: Worker) -> None:
    path = shared.mount / name
    fd = os.open(path, os.O_RDONLY)
    try:
        assert os.fstat(fd) == path.stat()
    finally:
        os.close(fd)


def test_block_size_and_blocks(shared: Worker) -> None:
    found = os.statvfs(shared.mount)
    assert (found.f_bsize, found.f_frsize, found.f_blocks) == (PAGE, PAGE, SIZE // PAGE)


def test_free_blocks_are_those_without_a_stored_page(device: Worker, swap: int) -> None:
    os.pwrite(swap, os.urandom(5 * PAGE), 0)
    found = os.statvfs(device.mount)
    assert found.f_bfree == found.f_bavail == found.f_blocks - 5


@pytest.mark.parametrize("name", ["nothing", "Swap", "swap ", "x" * 255, "\udcff"])
def test_unknown_names(name: str, shared: Worker) -> None:
    assert errno_of((shared.mount / name).stat) == errno.ENOENT


# --- What is refused -------------------------------------------------------------------


@pytest.mark.parametrize("name", RENDERED)
@pytest.mark.parametrize("flags", [os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC])
def test_read_only_files_cannot_be_opened_for_writing(
    name: str, flags: int, shared: Worker
) -> None:
    assert errno_of(lambda: os.open(shared.mount / name, flags)) in {errno.EACCES, errno.EPERM}


CHANGES: dict[str, Callable[[Path], object]] = {
    "unlink": lambda at: (at / "stats").unlink(),
    "unlink swap": lambda at: (at / "swap").unlink(),
    "create": lambda at: (at / "new").touch(),
    "mkdir": lambda at: (at / "new").mkdir(),
    "rename": lambda at: (at / "stats").rename(at / "new"),
    "rename over": lambda at: (at / "stats").rename(at / "ctl"),
    "link": lambda at: (at / "new").hardlink_to(at / "stats"),
    "symlink": lambda at: (at / "new").symlink_to("stats"),
    "mknod": lambda at: os.mkfifo(at / "new"),
    "chmod": lambda at: (at / "swap").chmod(0o666),
    "chown": lambda at: os.chown(at / "swap", NOBODY, NOBODY),
    "utime": lambda at: os.utime(at / "swap"),
    "truncate swap": lambda at: os.truncate(at / "swap", 0),
    "grow swap": lambda at: os.truncate(at / "swap", 2 * SIZE),
    "truncate stats": lambda at: os.truncate(at / "stats", 0),
    "setxattr": lambda at: os.setxattr(at / "swap", "user.x", b"1"),
    "removexattr": lambda at: os.removexattr(at / "swap", "user.x"),
    "temporary file": lambda at: os.open(at, os.O_RDWR | os.O_TMPFILE),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_refused_cleanly(change: str, shared: Worker) -> None:
    assert errno_of(lambda: CHANGES[change](shared.mount)) in REFUSALS


def test_refused_changes_change_nothing(device: Worker, swap: int) -> None:
    os.pwrite(swap, b"still here", 0)
    before = {path.name: path.stat() for path in device.mount.iterdir()}
    for change in CHANGES.values():
        errno_of(lambda change=change: change(device.mount))  # type: ignore[misc]
    assert {path.name: path.stat() for path in device.mount.iterdir()} == before
    assert os.pread(swap, 10, 0) == b"still here"


def _ioctl(fd: int) -> object:
    return fcntl.ioctl(fd, 0x5401)


def _poll(fd: int) -> object:
    poll = select.poll()
    poll.register(fd)
    return poll.poll(0)


def _map(fd: int) -> object:
    with suppress(ValueError), mmap.mmap(fd, PAGE, mmap.MAP_PRIVATE, mmap.PROT_READ) as mapped:
        return mapped[:1]
    return None


CALLS: dict[str, Callable[[int], object]] = {
    "ioctl": _ioctl,
    "poll": _poll,
    "mmap": _map,
    "flock": lambda fd: fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
    "lockf": lambda fd: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
    "fsync": os.fsync,
    "fdatasync": os.fdatasync,
    "syncfs": lambda fd: ctypes.CDLL(None).syncfs(fd),
    "fadvise": lambda fd: os.posix_fadvise(fd, 0, PAGE, os.POSIX_FADV_WILLNEED),
    "listxattr": os.listxattr,
    "getxattr": lambda fd: os.getxattr(fd, "fuse_stacktrace"),
    "copy_file_range": lambda fd: os.copy_file_range(fd, fd, 10, 0, 100),
    "sendfile": lambda fd: os.sendfile(fd, fd, 0, 10),
    "splice": lambda fd: os.splice(fd, fd, 10),
    "seek": lambda fd: [os.lseek(fd, 0, how) for how in (os.SEEK_END, os.SEEK_DATA, 3, 4)],
    "fchdir": os.fchdir,
}


@pytest.mark.parametrize("name", ["swap", "ctl", "stats", "."])
@pytest.mark.parametrize("call", CALLS)
def test_any_other_call_is_survived(call: str, name: str, shared: Worker) -> None:
    here = Path.cwd()
    flags = os.O_RDONLY if name in ("stats", ".") else os.O_RDWR
    fd = os.open(shared.mount / name, flags)
    try:
        errno_of(lambda: CALLS[call](fd))
    finally:
        os.chdir(here)
        os.close(fd)
    assert shared.stats()["size"] == SIZE
    assert shared.process.poll() is None


# --- ctl -------------------------------------------------------------------------------


def test_echo_to_ctl(device: Worker) -> None:
    done = shell("echo help > ctl && cat ctl", device.mount)
    assert (done.returncode, done.stderr) == (0, "")
    assert "\nhelp: list the commands\n" in done.stdout


def test_a_command_needs_no_newline(device: Worker) -> None:
    assert shell("printf help > ctl && cat ctl", device.mount).stdout.startswith("memory_limit ")


def test_a_wrong_command_is_einval_and_the_reason_can_be_read(device: Worker) -> None:
    ctl = device.mount / "ctl"
    assert errno_of(lambda: ctl.write_text("rubbish\n")) == errno.EINVAL
    assert ctl.read_text() == "error: unknown command 'rubbish'; try: help\n"


@pytest.mark.parametrize("data", [b"\xff\xfe\n", b"\0", b" \n", b"x" * 4096])
def test_rubbish_is_einval(data: bytes, device: Worker) -> None:
    ctl = device.mount / "ctl"
    assert errno_of(lambda: ctl.write_bytes(data)) == errno.EINVAL
    assert ctl.read_text().startswith("error: ")


@pytest.mark.parametrize("size", [4097, 1 << 20])
def test_too_long_a_command_is_e2big(size: int, shared: Worker) -> None:
    data = b"x" * size
    with (shared.mount / "ctl").open("wb", buffering=0) as ctl:
        assert errno_of(lambda: ctl.write(data)) == errno.E2BIG


def test_ctl_is_empty_before_the_first_command(device: Worker) -> None:
    assert (device.mount / "ctl").read_bytes() == b""


# --- Who may ---------------------------------------------------------------------------


def as_nobody(script: str, at: Path) -> subprocess.CompletedProcess[str]:
    return shell(script, at, user=NOBODY, group=NOBODY)


@pytest.mark.parametrize("name", RENDERED)
def test_everybody_may_read_statistics(name: str, shared: Worker) -> None:
    done = as_nobody(f"cat {name}", shared.mount)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


@pytest.mark.parametrize("script", ["cat swap", "cat ctl", "echo help > ctl", "echo > swap"])
def test_nobody_else_may_see_pages_or_give_commands(script: str, shared: Worker) -> None:
    done = as_nobody(script, shared.mount)
    assert done.returncode != 0
    assert done.stdout == ""
    assert "Permission denied" in done.stderr


# --- Consistency -----------------------------------------------------------------------


def test_stats_are_rendered_at_open(device: Worker, swap: int) -> None:
    with (device.mount / "stats.json").open("rb", buffering=0) as file:
        os.pwrite(swap, os.urandom(3 * PAGE), 0)
        assert json.loads(file.readall())["stored_pages"] == 0
    assert device.stats()["stored_pages"] == 3


def test_stats_read_in_pieces_are_consistent(device: Worker, swap: int) -> None:
    fd = os.open(device.mount / "stats.json", os.O_RDONLY)
    try:
        whole = os.pread(fd, 1 << 20, 0)
        pieces = []
        while piece := os.read(fd, 100):
            pieces.append(piece)
            os.pwrite(swap, os.urandom(PAGE), PAGE * len(pieces))
        assert b"".join(pieces) == whole
    finally:
        os.close(fd)


def test_files_opened_at_the_same_time_are_independent(device: Worker, swap: int) -> None:
    files = []
    try:
        for pages in range(5):
            files.append(os.open(device.mount / "stats.json", os.O_RDONLY))
            os.pwrite(swap, os.urandom(PAGE), pages * PAGE)
        stored = [json.loads(os.pread(fd, 1 << 20, 0))["stored_pages"] for fd in files]
    finally:
        for fd in files:
            os.close(fd)
    assert stored == [0, 1, 2, 3, 4]


def test_stats_and_stats_json_agree(shared: Worker) -> None:
    lines = (shared.mount / "stats").read_text().splitlines()
    names = {line.split()[0] for line in lines}
    assert names == set(json.loads((shared.mount / "stats.json").read_bytes()))


@pytest.mark.parametrize(("name", "columns"), [("mm_stat", 9), ("io_stat", 4), ("bd_stat", 3)])
def test_zram_s_files_have_its_columns(name: str, columns: int, shared: Worker) -> None:
    numbers = (shared.mount / name).read_text().split()
    assert len([int(number) for number in numbers]) == columns


@pytest.mark.parametrize("program", ["cat", "head -c 10", "tail -c 10", "wc -c", "cksum"])
def test_usual_programs_can_read_them(program: str, shared: Worker) -> None:
    done = shell(f"{program} stats", shared.mount)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout


BROKEN_METRICS = """
from vswapd.control.files import RENDERERS
def broken(report):
    raise ZeroDivisionError("a fault of ours")
RENDERERS["metrics"] = broken
"""


def test_a_fault_in_the_control_plane_does_not_end_the_device(start: Start) -> None:
    device = start(prelude=BROKEN_METRICS)
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        assert errno_of((device.mount / "metrics").read_bytes) == errno.EIO
        assert os.pread(fd, 4, 0) == b"kept"
        assert eventually(lambda: "a fault of ours" in device.stderr())
    finally:
        close(fd)
        device.log.write_text("")  # a traceback is in order here


# --- Leaks -----------------------------------------------------------------------------


def open_descriptors(device: Worker) -> int:
    return len(list(Path(f"/proc/{device.serving()}/fd").iterdir()))


def resident(device: Worker) -> int:
    """Bytes of anonymous memory."""
    for line in Path(f"/proc/{device.serving()}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no RssAnon")


def test_opening_and_closing_keeps_no_descriptor(device: Worker) -> None:
    device.stats()
    before = open_descriptors(device)
    for _ in range(100):
        device.stats()
    assert open_descriptors(device) == before


def growth(device: Worker, opens: int) -> int:
    before = resident(device)
    for _ in range(opens):
        device.stats()
    return resident(device) - before


def test_opening_and_closing_keeps_no_memory(device: Worker) -> None:
    """Contents that stay would be 750 KB each time; a heap grows at first, and then no more."""
    assert any(growth(device, 500) < 100 << 10 for _ in range(10))


def test_many_files_can_be_open_at_once(device: Worker) -> None:
    files = [os.open(device.mount / "stats", os.O_RDONLY) for _ in range(200)]
    contents = {os.pread(fd, 20, 0) for fd in files}
    for fd in files:
        os.close(fd)
    assert contents == {b"name test\nversion 0.1.0\n"[:20]}


def test_what_is_open_does_not_fill_the_memory(device: Worker) -> None:
    """What is rendered is kept, and the daemon's memory is locked."""
    files = []
    with pytest.raises(OSError, match="Too many open files"):
        for _ in range(300):
            files.append(os.open(device.mount / "stats", os.O_RDONLY))
    for fd in files:
        os.close(fd)
    assert errno_of((device.mount / "stats").read_bytes) == 0
