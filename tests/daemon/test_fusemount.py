"""Mounting a connection and unmounting it.

What needs /dev/fuse is marked so. fusermount3 is played by scripts where its answers matter.
"""

from __future__ import annotations

import errno
import gc
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

import vswap
import vswapd
from vswap import libc
from vswap.errors import UserError
from vswapd import fusemount as module
from vswapd.fusemount import open_and_mount, unmount

SOURCES = [str(Path(package.__path__[0]).parent) for package in (vswap, vswapd)]


needs_device = pytest.mark.skipif(
    not os.access("/dev/fuse", os.R_OK | os.W_OK) or os.geteuid() != 0,
    reason="mounting needs /dev/fuse and root",
)
needs_fusermount = pytest.mark.skipif(
    shutil.which("fusermount3") is None or not Path("/dev/fuse").exists(),
    reason="needs fusermount3 and /dev/fuse",
)


def mounted(path: Path) -> bool:
    return f" {path} " in Path("/proc/self/mountinfo").read_text()


def detach(path: Path) -> None:
    if mounted(path):
        libc.umount2(str(path), libc.MNT_DETACH)


def open_descriptors() -> int:
    gc.collect()  # what other tests have left
    return len(list(Path("/proc/self/fd").iterdir()))


# --- Mounting as root ------------------------------------------------------------------


@pytest.fixture
def mount_point(tmp_path: Path) -> Iterator[Path]:
    """A directory that is not mounted on any more afterwards, whatever happens."""
    point = tmp_path / "mnt"
    point.mkdir()
    yield point
    detach(point)


@pytest.mark.mount
@needs_device
def test_mounts_and_answers_the_device(mount_point: Path) -> None:
    fd = open_and_mount(str(mount_point), "name", as_user=False)
    try:
        assert Path(f"/proc/self/fd/{fd}").readlink() == Path("/dev/fuse")
        assert mounted(mount_point)
    finally:
        os.close(fd)


@pytest.mark.mount
@needs_device
def test_mountinfo_shows_type_name_and_options(mount_point: Path) -> None:
    os.close(open_and_mount(str(mount_point), "name", as_user=False))
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    line = next(line for line in lines if f" {mount_point} " in line)
    assert " - fuse.vswap name " in line
    for option in ("nosuid", "nodev", "noexec", "default_permissions", "allow_other"):
        assert option in line


@pytest.mark.mount
@needs_device
def test_the_descriptor_does_not_block_and_is_not_inherited(mount_point: Path) -> None:
    fd = open_and_mount(str(mount_point), "name", as_user=False)
    try:
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


@pytest.mark.mount
@needs_device
@pytest.mark.parametrize("kind", ["missing", "file", "below a file"])
def test_what_cannot_be_mounted_on_is_a_user_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    point = {
        "missing": tmp_path / "missing",
        "file": tmp_path / "file",
        "below a file": tmp_path / "file" / "mnt",
    }[kind]
    before = open_descriptors()
    with pytest.raises(UserError, match=f"^cannot mount on {point}: .+"):
        open_and_mount(str(point), "name", as_user=False)
    assert open_descriptors() == before
    assert not mounted(point)


@pytest.mark.parametrize("reason", [errno.ENOENT, errno.EACCES])
def test_no_device_is_a_user_error(
    reason: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: str, flags: int) -> int:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(UserError, match="cannot open /dev/fuse") as caught:
        open_and_mount(str(tmp_path), "name", as_user=False)
    assert os.strerror(reason) in str(caught.value)


@pytest.mark.mount
@needs_device
def test_unmount_takes_the_mount_away(mount_point: Path) -> None:
    fd = open_and_mount(str(mount_point), "name", as_user=False)
    try:
        unmount(str(mount_point), as_user=False)
        assert not mounted(mount_point)
    finally:
        os.close(fd)


@pytest.mark.mount
@needs_device
def test_unmount_of_what_is_not_mounted_is_an_os_error(mount_point: Path) -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        unmount(str(mount_point), as_user=False)


# --- Mounting through fusermount3 ------------------------------------------------------


@pytest.fixture
def fusermount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a script in the place of fusermount3; answers the file it may write notes to."""

    def install(script: str) -> Path:
        program = tmp_path / "bin" / "fusermount3"
        program.parent.mkdir()
        program.write_text(script)
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        notes = tmp_path / "notes"
        monkeypatch.setenv("NOTES", str(notes))
        return notes

    return install


SENDS_A_DESCRIPTOR = f"""#!{sys.executable}
import os, socket
with socket.socket(fileno=int(os.environ["_FUSE_COMMFD"])) as to:
    fd = os.open("/dev/null", os.O_RDWR)
    socket.send_fds(to, [b"\\0"], [fd])
"""


def test_takes_the_descriptor_that_fusermount_sends(
    fusermount: Callable[[str], Path], tmp_path: Path
) -> None:
    fusermount(SENDS_A_DESCRIPTOR)
    fd = open_and_mount(str(tmp_path), "name", as_user=True)
    try:
        assert Path(f"/proc/self/fd/{fd}").readlink() == Path("/dev/null")
        assert not os.get_blocking(fd)
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_tells_fusermount_name_type_and_place(
    fusermount: Callable[[str], Path], tmp_path: Path
) -> None:
    notes = fusermount('#!/bin/sh\nprintf "%s\\n" "$@" > "$NOTES"\nexit 1\n')
    with pytest.raises(UserError):
        open_and_mount("-odd", "name", as_user=True)
    option, options, dashes, point = notes.read_text().splitlines()
    assert (option, dashes, point) == ("-o", "--", "-odd")
    assert {"fsname=name", "subtype=vswap", "default_permissions"} < set(options.split(","))


def test_fusermount_s_last_line_is_the_reason(
    fusermount: Callable[[str], Path], tmp_path: Path
) -> None:
    fusermount("#!/bin/sh\necho chatter >&2\necho the reason >&2\nexit 1\n")
    with pytest.raises(UserError, match=f"^cannot mount on {tmp_path}: the reason$"):
        open_and_mount(str(tmp_path), "name", as_user=True)


def test_fusermount_may_fail_without_a_word(
    fusermount: Callable[[str], Path], tmp_path: Path
) -> None:
    fusermount("#!/bin/sh\nexit 1\n")
    with pytest.raises(UserError, match="no reason given"):
        open_and_mount(str(tmp_path), "name", as_user=True)


def test_without_fusermount_the_user_is_told_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="fusermount3: install fuse3"):
        open_and_mount(str(tmp_path), "name", as_user=True)


def test_a_fusermount_that_hangs_is_a_user_error(
    fusermount: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FUSERMOUNT_SECONDS", 0.2)
    fusermount("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(UserError, match="in time"):
        open_and_mount(str(tmp_path), "name", as_user=True)


def test_a_fusermount_that_sends_nothing_is_a_user_error(
    fusermount: Callable[[str], Path], tmp_path: Path
) -> None:
    """In a process of its own: to wait for what will never come would stop the tests."""
    fusermount("#!/bin/sh\nexit 0\n")
    code = (
        "from vswap.errors import UserError\n"
        "from vswapd.fusemount import open_and_mount\n"
        "try:\n"
        f"    open_and_mount({str(tmp_path)!r}, 'name', True)\n"
        "except UserError as error:\n"
        "    print(error)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=5,
        check=True,
    )
    assert done.stdout == "fusermount3 sent no descriptor\n"


@needs_fusermount
@pytest.mark.mount
@pytest.mark.parametrize("kind", ["missing", "file"])
def test_what_the_real_fusermount_refuses_is_a_user_error(kind: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    point = tmp_path / kind
    with ExitStack() as undo:
        undo.callback(detach, point)
        with pytest.raises(UserError, match=f"^cannot mount on {point}: .+"):
            undo.callback(os.close, open_and_mount(str(point), "name", as_user=True))


@pytest.mark.parametrize(("lazy", "option"), [(False, "-u"), (True, "-uz")])
def test_unmounting_goes_through_fusermount(
    lazy: bool, option: str, fusermount: Callable[[str], Path]
) -> None:
    notes = fusermount('#!/bin/sh\nprintf "%s\\n" "$@" > "$NOTES"\n')
    unmount("-odd", as_user=True, lazy=lazy)
    assert notes.read_text().splitlines() == [option, "--", "-odd"]


def test_a_mount_in_use_is_an_os_error(fusermount: Callable[[str], Path]) -> None:
    fusermount("#!/bin/sh\necho busy >&2\nexit 1\n")
    with pytest.raises(OSError, match="busy") as caught:
        unmount("/mnt", as_user=True)
    assert caught.value.errno == errno.EBUSY
