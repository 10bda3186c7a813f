"""A backing in a file: what it keeps, what it refuses, and what it does when the file changes."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswap.geometry import SEGMENT_SIZE
from vswap.store import backing_make, label
from vswap.store.backing import BLOCK, NOTE_SIZE, Backing, aligned
from vswap.store.backing_file import FileBacking
from vswap.store.backing_make import LABEL_SIZE, make_file

Open = Callable[..., FileBacking]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A new file with room for two segments."""
    probe = tmp_path / "probe"
    probe.touch()
    try:
        os.close(os.open(probe, os.O_RDWR | os.O_DIRECT))
        backing_make.check_path(str(probe))
    except (OSError, UserError) as error:
        pytest.skip(f"the temporary directory cannot hold a backing: {error}")
    probe.unlink()
    made = tmp_path / "backing"
    make_file(str(made), 2 * SEGMENT_SIZE)
    return made


@pytest.fixture
def attach() -> Iterator[Open]:
    """Opens backings, which are closed after the test."""
    opened: list[FileBacking] = []

    def opener(path: Path, size: int | None = None) -> FileBacking:
        opened.append(FileBacking.open(str(path), size))
        return opened[-1]

    yield opener
    for backing in opened:
        with suppress(OSError):
            backing.close()


def filled(byte: bytes, size: int = SEGMENT_SIZE) -> memoryview:
    memory = aligned(size)
    memory[:] = byte * size
    return memory


def read(backing: Backing, offset: int, size: int = SEGMENT_SIZE) -> bytes:
    memory = aligned(size)
    backing.read(offset, memory)
    return bytes(memory)


def refusal(path: Path, size: int | None = None) -> str:
    """Why a backing is refused, in one line; and nothing of it stays open."""
    with pytest.raises(UserError) as refused:
        FileBacking.open(str(path), size)
    links = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert str(path) not in links
    text = str(refused.value)
    assert text.startswith(str(path))
    assert "\n" not in text
    return text.removeprefix(f"{path} ")


# --- What it keeps ----------------------------------------------------------------------


def test_what_was_written_is_read_by_the_next_daemon_too(path: Path, attach: Open) -> None:
    backing = attach(path)
    backing.write(SEGMENT_SIZE, filled(b"s"))
    backing.write(3 * BLOCK, filled(b"b", BLOCK))
    backing.close()
    backing = attach(path)
    assert read(backing, SEGMENT_SIZE) == b"s" * SEGMENT_SIZE
    assert read(backing, 2 * BLOCK, 3 * BLOCK) == bytes(BLOCK) + b"b" * BLOCK + bytes(BLOCK)


def test_segments_begin_behind_the_first_mebibyte(path: Path, attach: Open) -> None:
    attach(path).write(0, filled(b"x", BLOCK))
    content = path.read_bytes()
    assert content[:LABEL_SIZE] == bytes(LABEL_SIZE)
    assert content[LABEL_SIZE : LABEL_SIZE + BLOCK] == b"x" * BLOCK
    assert len(content) == LABEL_SIZE + 2 * SEGMENT_SIZE


def test_the_size_is_what_there_is_of_whole_segments(path: Path, attach: Open) -> None:
    with path.open("ab") as file:
        file.write(bytes(SEGMENT_SIZE - 1))
    assert attach(path, SEGMENT_SIZE).size == 2 * SEGMENT_SIZE


def test_a_note_outlives_the_daemon(path: Path, attach: Open) -> None:
    backing = attach(path)
    assert backing.load_note() == b""
    for note in (bytes(range(256)) * 2, b"last"):
        assert len(note) <= NOTE_SIZE
        backing.save_note(note)
        assert backing.load_note() == note
    backing.close()
    assert attach(path).load_note() == b"last"


def test_a_note_is_kept_apart_from_the_segments(path: Path, attach: Open) -> None:
    backing = attach(path)
    backing.save_note(b"note")
    backing.write(0, filled(b"x"))
    assert backing.load_note() == b"note"
    backing.save_note(b"other")
    assert read(backing, 0) == b"x" * SEGMENT_SIZE


def test_a_note_is_on_the_medium_when_it_is_saved(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)
    flags: list[int] = []
    real = os.pwritev

    def pwritev(fd: int, buffers: list[memoryview], offset: int, flag: int = 0) -> int:
        flags.append(flag)
        return real(fd, buffers, offset, flag)

    monkeypatch.setattr(os, "pwritev", pwritev)
    backing.save_note(b"note")
    assert flags == [os.RWF_DSYNC]


def test_a_damaged_label_costs_the_note_and_nothing_else(path: Path, attach: Open) -> None:
    block = bytearray(label.pack(b"note"))
    block[20] ^= 1
    with path.open("r+b") as file:
        file.write(block)
    assert attach(path).load_note() == b""


def test_a_label_that_was_overwritten_is_an_error(path: Path, attach: Open) -> None:
    backing = attach(path)
    with path.open("r+b") as file:
        file.write(b"something else")
    with pytest.raises(OSError, match="the label was overwritten"):
        backing.load_note()


def test_threads_may_read_and_write_at_once(path: Path, attach: Open) -> None:
    backing = attach(path)
    wrong: list[str] = []

    def work(number: int) -> None:
        byte = bytes([number + 1])
        for turn in range(20):
            offset = (turn * 8 + number) * BLOCK
            backing.write(offset, filled(byte, BLOCK))
            backing.save_note(byte * 9)
            if read(backing, offset, BLOCK) != byte * BLOCK:
                wrong.append(f"block {offset}")
            note = backing.load_note()
            if note != note[:1] * 9:
                wrong.append(f"note {note!r}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert backing.load_note() != b""


def test_a_note_that_is_being_saved_is_not_mixed_with_another(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)
    others: list[threading.Thread] = []
    real = os.pwritev

    def pwritev(fd: int, buffers: list[memoryview], offset: int, flag: int = 0) -> int:
        if not others:
            others.append(threading.Thread(target=backing.save_note, args=(b"other",)))
            others[0].start()
            others[0].join(0.05)  # it cannot end: it waits for this one
            assert label.unpack(bytes(buffers[0])) == b"note"
        return real(fd, buffers, offset, flag)

    monkeypatch.setattr(os, "pwritev", pwritev)
    backing.save_note(b"note")
    others[0].join()
    assert backing.load_note() == b"other"


# --- What it refuses --------------------------------------------------------------------


def test_what_does_not_exist_is_refused_with_the_way_to_make_it(tmp_path: Path) -> None:
    text = refusal(tmp_path / "none")
    assert text == (
        "does not exist; `vswap backing attach FILE --size SIZE` or `--backing-size` makes it"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_directory_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path).startswith("is neither a regular file nor a block device")


def test_a_fifo_is_refused_without_being_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path, 0o600)
    assert refusal(path).startswith("is neither a regular file nor a block device")


def test_a_character_device_is_refused() -> None:
    assert refusal(Path("/dev/zero")).startswith("is neither a regular file nor a block device")


def test_a_link_to_a_file_is_refused_with_what_it_leads_to(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    assert refusal(link) == f"is a symbolic link; name the file itself: {path}"


def test_a_link_to_nowhere_is_refused(tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to("none")
    assert refusal(link).startswith("does not exist")


@pytest.mark.parametrize("mode", [0o640, 0o620, 0o604, 0o602, 0o666])
def test_a_file_that_others_can_read_or_write_is_refused(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert refusal(path).endswith(f"by other users; `chmod 600 {path}`")


def test_a_file_of_another_user_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert refusal(path).startswith(f"belongs to user {owner} and vswap runs as user {owner + 1};")


def test_a_sparse_file_is_refused(path: Path) -> None:
    os.truncate(path, 8 * SEGMENT_SIZE)
    text = refusal(path)
    assert text.startswith("is sparse")
    assert text.endswith(f"`fallocate -l {8 * SEGMENT_SIZE} {path}`")


def test_a_file_that_is_only_allocated_is_taken(tmp_path: Path, path: Path, attach: Open) -> None:
    allocated = tmp_path / "allocated"
    fd = os.open(allocated, os.O_RDWR | os.O_CREAT, 0o600)
    os.posix_fallocate(fd, 0, LABEL_SIZE + SEGMENT_SIZE)
    os.close(fd)
    assert attach(allocated).size == SEGMENT_SIZE
    assert path.exists()  # it is here for its skip


def test_a_file_in_memory_is_refused() -> None:
    path = Path(f"/dev/shm/vswap-test-{os.getpid()}")
    try:
        path.touch(0o600)
        backing_make.check_path(str(path))
    except OSError as error:
        pytest.skip(f"no tmpfs: {error}")
    except UserError:
        assert refusal(path) == "is on tmpfs, which is memory itself; choose a place on a disk"
    else:
        pytest.skip("/dev/shm is no tmpfs")
    finally:
        path.unlink(missing_ok=True)


def test_a_file_on_a_fuse_mount_is_refused_untouched(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name: to ask the file system can be to wait for ourselves."""
    table = path.with_name("mountinfo")
    table.write_text(f"1 0 0:31 / {path.parent} rw - fuse.vswap swap rw\n")
    monkeypatch.setattr(backing_make, "_MOUNTINFO", table)

    def touched(*_args: object) -> None:
        raise AssertionError("touched")

    with monkeypatch.context() as patched:
        patched.setattr(os, "lstat", touched)
        patched.setattr(os, "open", touched)
        with pytest.raises(UserError, match=r"is on fuse\.vswap, served by a process"):
            FileBacking.open(str(path))


def test_a_file_system_is_known_by_the_descriptor_too(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that leads through a link to a directory does not tell."""
    fd = os.open(path, os.O_RDONLY)
    info = Path(f"/proc/self/fdinfo/{fd}").read_text()
    os.close(fd)
    number = info.split("mnt_id:")[1].split()[0]
    table = path.with_name("mountinfo")
    table.write_text(f"{number} 0 0:31 / /elsewhere rw - fuse.vswap swap rw\n")
    monkeypatch.setattr(backing_make, "_MOUNTINFO", table)
    assert refusal(path).startswith("is on fuse.vswap")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (errno.EINVAL, "is on a file system without O_DIRECT"),
        (errno.ETXTBSY, "cannot be opened: Text file busy"),
        (errno.EPERM, "cannot be opened: Operation not permitted"),
        (errno.EACCES, "cannot be opened: Permission denied"),
        (errno.EBUSY, "is in use (mounted, or part of something)"),
    ],
)
def test_what_the_system_refuses_is_told_in_one_line(
    path: Path, monkeypatch: pytest.MonkeyPatch, code: int, reason: str
) -> None:
    def fail(*_args: object) -> int:
        raise OSError(code, os.strerror(code), str(path))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(UserError) as refused:
        FileBacking.open(str(path))
    assert str(refused.value).startswith(f"{path} {reason}")


def test_a_file_that_is_replaced_meanwhile_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at it and the opening."""
    other = path.with_name("other")
    make_file(str(other), SEGMENT_SIZE)
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda found, flags: real(other if found == str(path) else found, flags)
    )
    with pytest.raises(UserError, match="was replaced while it was looked at"):
        FileBacking.open(str(path))


def test_a_file_that_is_smaller_than_asked_is_refused_with_both_sizes(path: Path) -> None:
    text = refusal(path, 3 * SEGMENT_SIZE)
    assert f"it has {3 * SEGMENT_SIZE} bytes and {4 * SEGMENT_SIZE} are needed" in text


def test_a_file_that_is_just_large_enough_is_taken(path: Path, attach: Open) -> None:
    assert attach(path, 2 * SEGMENT_SIZE).size == 2 * SEGMENT_SIZE


@pytest.mark.parametrize("length", [0, 1, BLOCK, 2 * SEGMENT_SIZE - 1])
def test_a_file_without_room_for_a_segment_is_refused(path: Path, length: int) -> None:
    os.truncate(path, length)
    assert f"it has {length} bytes and {2 * SEGMENT_SIZE} are needed" in refusal(path)


@pytest.mark.parametrize("position", [0, 510, 1080, BLOCK - 10, BLOCK, 65600, LABEL_SIZE - 1])
def test_a_file_that_holds_something_else_is_refused(path: Path, position: int) -> None:
    """At 65600, for one, btrfs has its magic, and nothing before it."""
    with path.open("r+b") as file:
        file.seek(position)
        file.write(b"!")
    content = path.read_bytes()
    assert refusal(path).startswith("holds something else; vswap does not overwrite it")
    assert path.read_bytes() == content


def test_a_labelled_file_that_something_else_was_made_on_is_refused(
    path: Path, attach: Open
) -> None:
    """md leaves the first block as it was."""
    backing = attach(path)
    backing.save_note(b"note")
    backing.close()
    with path.open("r+b") as file:
        file.seek(BLOCK)
        file.write(b"\xfc\x4e\x2b\xa9")
    assert refusal(path).startswith("holds something else")


def test_a_file_is_for_one_device_at_a_time(path: Path, attach: Open) -> None:
    backing = attach(path)
    with pytest.raises(UserError, match="is used by another device"):
        attach(path)
    backing.close()
    assert attach(path).size == 2 * SEGMENT_SIZE


def test_a_refused_file_is_left_to_others(path: Path, attach: Open) -> None:
    refusal(path, 9 * SEGMENT_SIZE)
    assert attach(path).size == 2 * SEGMENT_SIZE


def test_opening_changes_nothing(path: Path, attach: Open) -> None:
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    attach(path).close()
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before


def test_the_descriptor_is_direct_and_closed_on_exec(path: Path, attach: Open) -> None:
    attach(path)
    (link,) = [
        link for link in Path("/proc/self/fd").iterdir() if os.path.realpath(link) == str(path)
    ]
    text = Path(f"/proc/self/fdinfo/{link.name}").read_text()
    flags = int(text.split("flags:")[1].split()[0], 8)
    assert flags & os.O_DIRECT
    assert flags & os.O_CLOEXEC
    assert flags & os.O_ACCMODE == os.O_RDWR


# --- When the file changes --------------------------------------------------------------


def test_a_read_of_what_was_truncated_away_is_an_error(path: Path, attach: Open) -> None:
    backing = attach(path)
    backing.write(0, filled(b"x"))
    os.truncate(path, LABEL_SIZE + SEGMENT_SIZE + BLOCK)
    assert read(backing, 0) == b"x" * SEGMENT_SIZE
    for offset, size in ((SEGMENT_SIZE, SEGMENT_SIZE), (2 * SEGMENT_SIZE - BLOCK, BLOCK)):
        with pytest.raises(OSError, match="short read") as failed:
            read(backing, offset, size)
        assert failed.value.errno == errno.EIO


def test_a_truncated_file_is_not_made_longer_again(path: Path, attach: Open) -> None:
    backing = attach(path)
    os.truncate(path, LABEL_SIZE)
    writes: list[Callable[[], None]] = [
        lambda: backing.write(0, filled(b"x", BLOCK)),
        lambda: backing.write(SEGMENT_SIZE, filled(b"x")),
        lambda: backing.save_note(b"note"),
        lambda: backing.grow(4 * SEGMENT_SIZE),
    ]
    for write in writes:
        with pytest.raises(OSError, match="was truncated") as failed:
            write()
        assert failed.value.errno == errno.EIO
    assert path.stat().st_size == LABEL_SIZE


def test_a_file_that_was_truncated_to_nothing_has_no_note(path: Path, attach: Open) -> None:
    backing = attach(path)
    os.truncate(path, 0)
    with pytest.raises(OSError, match="short read"):
        backing.load_note()


def test_a_file_that_was_removed_is_used_until_it_is_closed(path: Path, attach: Open) -> None:
    backing = attach(path)
    path.unlink()
    backing.write(SEGMENT_SIZE, filled(b"x"))
    backing.save_note(b"note")
    assert read(backing, SEGMENT_SIZE) == b"x" * SEGMENT_SIZE
    assert backing.load_note() == b"note"
    assert not path.exists()


def test_a_short_write_is_an_error(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)
    monkeypatch.setattr(os, "pwritev", lambda _fd, buffers, *_rest: len(buffers[0]) - 512)
    writes: list[Callable[[], None]] = [
        lambda: backing.write(0, filled(b"x")),
        lambda: backing.save_note(b"note"),
    ]
    for write in writes:
        with pytest.raises(OSError, match="short write") as failed:
            write()
        assert failed.value.errno == errno.EIO


def test_a_short_read_is_an_error(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)
    monkeypatch.setattr(os, "preadv", lambda _fd, buffers, *_rest: len(buffers[0]) - 512)
    with pytest.raises(OSError, match="short read"):
        read(backing, 0)
    with pytest.raises(OSError, match="short read"):
        backing.load_note()


def test_a_file_that_is_shortened_while_it_is_opened_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "preadv", lambda *_args: 0)
    assert refusal(path) == "cannot back memory: short read"


def test_an_error_of_the_medium_comes_through(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)

    def fail(*_args: object) -> int:
        raise OSError(errno.ENXIO, "gone")

    monkeypatch.setattr(os, "pwritev", fail)
    monkeypatch.setattr(os, "preadv", fail)
    for call in (backing.write, backing.read):
        with pytest.raises(OSError, match="gone") as failed:
            call(0, filled(b"x", BLOCK))
        assert failed.value.errno == errno.ENXIO


@pytest.mark.parametrize("offset", [SEGMENT_SIZE + BLOCK, 2 * SEGMENT_SIZE, -SEGMENT_SIZE])
def test_what_does_not_lie_in_the_segments_is_an_error(
    path: Path, attach: Open, offset: int
) -> None:
    backing = attach(path)
    for call in (backing.write, backing.read):
        with pytest.raises(OSError, match="beyond the end"):
            call(offset, filled(b"x"))
    assert path.read_bytes() == bytes(LABEL_SIZE + 2 * SEGMENT_SIZE)


# --- Growing ----------------------------------------------------------------------------


def test_it_grows_and_keeps_what_it_has(path: Path, attach: Open) -> None:
    backing = attach(path)
    backing.write(SEGMENT_SIZE, filled(b"x"))
    backing.save_note(b"note")
    backing.grow(4 * SEGMENT_SIZE - 1)
    assert backing.size == 4 * SEGMENT_SIZE
    assert read(backing, SEGMENT_SIZE) == b"x" * SEGMENT_SIZE
    assert read(backing, 2 * SEGMENT_SIZE, 2 * SEGMENT_SIZE) == bytes(2 * SEGMENT_SIZE)
    assert backing.load_note() == b"note"
    backing.write(3 * SEGMENT_SIZE, filled(b"y"))
    assert read(backing, 3 * SEGMENT_SIZE) == b"y" * SEGMENT_SIZE
    found = path.stat()
    assert found.st_size == LABEL_SIZE + 4 * SEGMENT_SIZE
    assert found.st_blocks * 512 >= found.st_size


def test_what_it_grows_by_is_written_and_not_only_allocated(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)
    written: list[tuple[int, int]] = []
    real = os.pwritev

    def pwritev(fd: int, buffers: list[memoryview], offset: int) -> int:
        written.append((offset, len(buffers[0])))
        return real(fd, buffers, offset)

    monkeypatch.setattr(os, "pwritev", pwritev)
    backing.grow(4 * SEGMENT_SIZE)
    assert written == [(n * SEGMENT_SIZE, SEGMENT_SIZE) for n in (3, 4)]


def test_a_piece_of_a_segment_at_the_end_is_grown_over(path: Path, attach: Open) -> None:
    with path.open("ab") as file:
        file.write(b"x" * (BLOCK + 1))
    backing = attach(path)
    backing.grow(3 * SEGMENT_SIZE)
    assert read(backing, 2 * SEGMENT_SIZE) == bytes(SEGMENT_SIZE)
    assert path.stat().st_size == LABEL_SIZE + 3 * SEGMENT_SIZE


def test_to_grow_to_what_it_has_changes_nothing(path: Path, attach: Open) -> None:
    backing = attach(path)
    backing.write(SEGMENT_SIZE, filled(b"x"))
    backing.grow(2 * SEGMENT_SIZE)
    assert backing.size == 2 * SEGMENT_SIZE
    assert read(backing, SEGMENT_SIZE) == b"x" * SEGMENT_SIZE


def test_it_does_not_shrink(path: Path, attach: Open) -> None:
    backing = attach(path)
    with pytest.raises(UserError, match="has room for 2 MiB already; it does not shrink"):
        backing.grow(SEGMENT_SIZE)
    assert backing.size == 2 * SEGMENT_SIZE
    assert path.stat().st_size == LABEL_SIZE + 2 * SEGMENT_SIZE


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_without_room_the_file_is_what_it_was(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    """As a file system may do, which gives some of the room before it fails."""
    backing = attach(path)
    backing.write(SEGMENT_SIZE, filled(b"x"))
    real = os.posix_fallocate

    def posix_fallocate(fd: int, offset: int, _length: int) -> None:
        real(fd, offset, SEGMENT_SIZE)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    with pytest.raises(UserError, match="cannot grow to 9 MiB"):
        backing.grow(9 * SEGMENT_SIZE)
    assert backing.size == 2 * SEGMENT_SIZE
    assert path.stat().st_size == LABEL_SIZE + 2 * SEGMENT_SIZE
    assert read(backing, SEGMENT_SIZE) == b"x" * SEGMENT_SIZE


def test_an_interruption_while_it_grows_leaves_the_file_as_it_was(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)

    def interrupt(*_args: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "pwritev", interrupt)
    with pytest.raises(KeyboardInterrupt):
        backing.grow(4 * SEGMENT_SIZE)
    assert backing.size == 2 * SEGMENT_SIZE
    assert path.stat().st_size == LABEL_SIZE + 2 * SEGMENT_SIZE


def test_a_file_system_that_does_not_allocate_is_filled_all_the_same(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)

    def fail(*_args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "not supported")

    monkeypatch.setattr(os, "posix_fallocate", fail)
    backing.grow(4 * SEGMENT_SIZE)
    assert backing.size == 4 * SEGMENT_SIZE
    assert path.stat().st_size == LABEL_SIZE + 4 * SEGMENT_SIZE


def test_it_is_read_and_written_and_keeps_notes_while_it_grows(
    path: Path, attach: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = attach(path)
    seen: list[tuple[int, bytes, bytes]] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        backing.write(0, filled(b"x"))
        backing.save_note(b"note")
        seen.append((backing.size, read(backing, 0, BLOCK), backing.load_note()))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    backing.grow(4 * SEGMENT_SIZE)
    assert seen == [(2 * SEGMENT_SIZE, b"x" * BLOCK, b"note")]
