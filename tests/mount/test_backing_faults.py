"""What the file of a backing may suffer, and how the daemon ends, while pages are on disk.

Real daemons and real files. Whatever happens to the file, a page is as it was written or cannot
be read: it is never another one.
"""

from __future__ import annotations

import errno
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from descriptor_support import memory_file
from mount.harness import (
    FALLOC_FL_KEEP_SIZE,
    FALLOC_FL_PUNCH_HOLE,
    PAGE,
    Start,
    Worker,
    aligned,
    close,
    errno_of,
    eventually,
    fallocate,
    give,
    run_vswap,
)

from vswap.errors import UserError
from vswap.store import backing_make
from vswap.store.backing_file import FileBacking
from vswap.store.backing_make import LABEL_SIZE, make_file

pytestmark = pytest.mark.mount

MIB = 1 << 20
SECONDS = 30.0
LIMIT = 16 * MIB
UNITS = 1 << 20
"""A limit for writing that is not reached, in units of 4 KiB."""

WITHOUT_LOCKED_MEMORY = (
    *("setpriv", "--bounding-set", "-ipc_lock,-sys_resource"),
    *("--inh-caps", "-ipc_lock,-sys_resource", "prlimit", "--memlock=0"),
)


def stats(device: Worker) -> dict[str, Any]:
    values = json.loads((device.mount / "stats.json").read_bytes())
    assert isinstance(values, dict)
    return values


def noise(pages: int) -> bytes:
    return os.urandom(pages * PAGE)


def fill(swap: int, data: bytes, page: int = 0) -> None:
    """Write whole pages, from that page on."""
    for at in range(0, len(data), MIB):
        os.pwrite(swap, aligned(data[at : at + MIB]), page * PAGE + at)


def unreadable(swap: int, data: bytes, pages: Iterable[int] | None = None) -> set[int]:
    """Which pages cannot be read; the others are as they were written."""
    lost = set()
    for page in range(len(data) // PAGE) if pages is None else pages:
        try:
            found = os.pread(swap, PAGE, page * PAGE)
        except OSError as error:
            assert error.errno == errno.EIO
            lost.add(page)
        else:
            assert found == data[page * PAGE : (page + 1) * PAGE], f"page {page} is another one"
    return lost


def backwards(pages: int) -> Iterable[int]:
    """An order in which nothing is read ahead."""
    return reversed(range(pages))


@contextmanager
def opened(device: Worker) -> Iterator[int]:
    fd = os.open(device.swap, os.O_RDWR)
    try:
        yield fd
    finally:
        close(fd)


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
def path(disk: Path) -> Path:
    """A new file with room for 20 MiB."""
    path = disk / "backing"
    make_file(str(path), 20 * MIB)
    return path


Serve = Callable[..., Worker]


@pytest.fixture
def serve(start: Start, path: Path) -> Serve:
    """Starts a device that writes back to the file; with the settings of `start`."""

    def begin(**changed: object) -> Worker:
        device = start(**{"name": "backing-faults", "backing": str(path), **changed})
        assert device.told == "ready", device.stderr()
        return device

    return begin


@pytest.fixture
def device(serve: Serve) -> Worker:
    return serve()


def put_on_disk(device: Worker, swap: int, pages: int) -> bytes:
    """Noise for the first pages, all of it written back."""
    data = noise(pages)
    fill(swap, data)
    code, said = give(device, "writeback huge")
    assert (code, said.split(";")[0].strip()) == (0, f"{pages} pages written back")
    assert stats(device)["backing_pages"] == pages
    return data


def assert_ends_cleanly(device: Worker) -> None:
    device.signal()
    assert device.wait() == 0
    assert not device.mounted()
    assert "no memory" not in device.stderr()


# --- Ending ------------------------------------------------------------------------------

# The disk stands still while there is a file `hold`, but for the first few calls, and for no
# longer than so many seconds at a time.
HELD = """
import time
from pathlib import Path
from vswap.store.backing_file import FileBacking
hold, busy, free = Path({hold!r}), Path({busy!r}), [{free}]
work = FileBacking.{call}
def held(self, offset, view):
    if free[0]:
        free[0] -= 1
    else:
        busy.touch()
        end = time.monotonic() + {seconds}
        while hold.exists() and time.monotonic() < end:
            time.sleep(0.005)
    work(self, offset, view)
FileBacking.{call} = held
"""


class Hold:
    """What holds a disk up."""

    def __init__(self, directory: Path) -> None:
        self._file, self._busy = directory / "hold", directory / "busy"
        self._file.touch()

    def prelude(self, call: str, *, free: int = 0, seconds: float = SECONDS) -> str:
        """What makes a daemon's disk stand still at that call."""
        names = {"hold": str(self._file), "busy": str(self._busy)}
        return HELD.format(**names, call=call, free=free, seconds=seconds)

    def release(self) -> None:
        self._file.unlink()

    @property
    def reached(self) -> bool:
        """Whether something waits for the disk, or has."""
        return self._busy.exists()


@pytest.fixture
def hold(tmp_path: Path) -> Iterator[Hold]:
    hold = Hold(tmp_path)
    try:
        yield hold
    finally:
        (tmp_path / "hold").unlink(missing_ok=True)


def test_a_signal_to_a_device_in_use_does_not_stop_its_writing_back(serve: Serve) -> None:
    device = serve(memory_limit=LIMIT)
    with opened(device) as swap:
        data, before = b"", 0
        for round_ in range(6):
            part = noise(1024)
            fill(swap, part, len(data) // PAGE)
            data += part
            if round_ == 3:
                before = stats(device)["bd_writes"]
                assert before > 0
                device.signal()
        assert eventually(lambda: "goes on being served" in device.stderr())
        assert stats(device)["bd_writes"] > before
        assert unreadable(swap, data) == set()
        assert give(device, "check")[0] == 0
    assert_ends_cleanly(device)


def test_a_signal_during_writing_back_ends_the_daemon_and_keeps_the_budget(
    serve: Serve, hold: Hold, path: Path
) -> None:
    device = serve(prelude=hold.prelude("write", free=2), writeback_limit=UNITS)
    with opened(device) as swap:
        fill(swap, noise(4096))
    assert give(device, f"memory_limit {LIMIT}")[0] == 0  # less than what is in use
    assert eventually(lambda: hold.reached)
    before = stats(device)
    assert before["bd_writes"] > 0
    device.signal()
    assert eventually(lambda: not device.mounted())
    hold.release()
    assert device.wait() == 0
    FileBacking.open(str(path)).close()  # nobody else has it

    device = serve()
    after = stats(device)
    assert (after["writeback_limit"], after["writeback_limit_enable"]) == (UNITS, True)
    last = UNITS - after["writeback_limit_left"] - before["bd_writes"]
    assert 0 < last <= MIB // PAGE  # of the write that was under way
    assert (after["backing_pages"], after["backing_segments_free"]) == (0, 20)
    with opened(device) as swap:
        put_on_disk(device, swap, 256)


def test_a_signal_during_detaching_ends_the_daemon(serve: Serve, hold: Hold) -> None:
    device = serve(prelude=hold.prelude("read", free=3))
    with opened(device) as swap:
        put_on_disk(device, swap, 4096)
    assert give(device, "backing detach")[0] == 0
    assert eventually(lambda: hold.reached)
    before = stats(device)
    assert before["backing_state"] == "detaching"
    assert 0 < before["backing_pages"] < 4096
    device.signal()
    assert eventually(lambda: not device.mounted())
    hold.release()
    assert device.wait() == 0
    assert stats(serve())["backing_pages"] == 0


def test_a_signal_to_a_device_in_use_does_not_stop_its_detaching(
    serve: Serve, hold: Hold, path: Path
) -> None:
    device = serve(prelude=hold.prelude("read", free=3))
    with opened(device) as swap:
        data = put_on_disk(device, swap, 4096)
        assert give(device, "backing detach")[0] == 0
        assert eventually(lambda: hold.reached)
        device.signal()
        assert eventually(lambda: "goes on being served" in device.stderr())
        hold.release()
        assert eventually(lambda: stats(device)["backing_state"] == "none")
        assert stats(device)["detach_result"] == "detached"
        path.unlink()
        assert unreadable(swap, data) == set()
    assert_ends_cleanly(device)


def test_a_detaching_that_is_stopped_leaves_all_readable_and_goes_on_later(
    serve: Serve, hold: Hold, path: Path
) -> None:
    device = serve(prelude=hold.prelude("read", seconds=0.05))
    with opened(device) as swap:
        data = put_on_disk(device, swap, 4096)
        assert give(device, "backing detach")[0] == 0
        assert eventually(lambda: stats(device)["drain_reads"] >= 3)
        assert give(device, "backing stop")[0] == 0
        hold.release()
        told = stats(device)
        assert (told["backing_state"], told["detach_result"]) == ("attached", "stopped")
        assert 0 < told["backing_pages"] < 4096
        assert unreadable(swap, data) == set()
        assert give(device, "check")[0] == 0
        code, said = give(device, "writeback huge")  # what was brought back may go again
        assert (code, said) == (0, f"{4096 - told['backing_pages']} pages written back\n")
        assert give(device, "backing detach")[0] == 0
        assert eventually(lambda: stats(device)["backing_state"] == "none")
        assert stats(device)["detach_result"] == "detached"
        path.unlink()
        assert unreadable(swap, data) == set()
        assert give(device, "check")[0] == 0
    assert_ends_cleanly(device)


def test_a_daemon_that_is_killed_leaves_a_dead_mount_and_a_free_file(serve: Serve) -> None:
    device = serve()
    with opened(device) as swap:
        put_on_disk(device, swap, 1024)
        device.kill()
        device.wait()
        assert errno_of(lambda: os.pread(swap, PAGE, 0)) in {errno.ENOTCONN, errno.ECONNABORTED}
    assert errno_of(device.swap.stat) == errno.ENOTCONN
    done = run_vswap("down", str(device.mount))
    assert done.returncode == 0, done.stderr
    assert not device.mounted()
    device = serve()
    assert stats(device)["backing_pages"] == 0
    with opened(device) as swap:
        data = put_on_disk(device, swap, 1024)
        assert unreadable(swap, data) == set()
    assert_ends_cleanly(device)


# --- A file that becomes shorter, or loses its name --------------------------------------


def truncate_to_a_half(path: Path) -> int:
    half = path.stat().st_size // 2
    os.truncate(path, half)
    return half


def test_what_was_beyond_a_truncated_file_s_end_cannot_be_read(device: Worker, path: Path) -> None:
    with opened(device) as swap:
        data = put_on_disk(device, swap, 4096)
        in_memory = noise(64)
        os.pwrite(swap, in_memory, len(data))
        truncate_to_a_half(path)
        lost = unreadable(swap, data, backwards(4096))
        assert lost == set(range(min(lost), 4096))  # it was filled in order
        assert 1024 < min(lost) < 3072
        assert os.pread(swap, len(in_memory), len(data)) == in_memory
        assert stats(device)["backing_failed_reads"] > 0
        code, said = give(device, "check")
        assert code == errno.EUCLEAN
        assert said.startswith("PROBLEMS: ")

        assert errno_of(lambda: os.pwrite(swap, b"a part", 4095 * PAGE)) == errno.EIO
        anew = noise(len(lost))
        fill(swap, anew, min(lost))
        assert unreadable(swap, data[: min(lost) * PAGE] + anew, backwards(4096)) == set()
    assert_ends_cleanly(device)


def test_pages_just_before_a_truncated_file_s_end_are_read_in_any_order(
    device: Worker, path: Path
) -> None:
    with opened(device) as swap:
        data = put_on_disk(device, swap, 4096)
        truncate_to_a_half(path)
        singly = unreadable(swap, data, backwards(4096))
        assert unreadable(swap, data) == singly
        found = give(device, "check")[1].splitlines()
        assert found[1].startswith(f"UNIT: slot {min(singly)}: ")
        fill(swap, data[min(singly) * PAGE :], min(singly))
        assert give(device, "check")[0] == 0


def test_a_truncated_file_is_not_written_to_and_does_not_grow(device: Worker, path: Path) -> None:
    with opened(device) as swap:
        data = put_on_disk(device, swap, 1024)
        half = truncate_to_a_half(path)
        more = noise(1024)
        fill(swap, more, 1024)
        before = stats(device)
        code, said = give(device, "writeback huge")
        assert (code, said) == (
            0,
            "0 pages written back; the disk rests, for writing to it has failed\n",
        )
        after = stats(device)
        assert after["backing_state"] == "resting"
        assert after["backing_failed_writes"] == before["backing_failed_writes"] + 2  # places tried
        assert after["bd_writes"] == before["bd_writes"]
        assert path.stat().st_size == half
        assert unreadable(swap, data + more) == set()
        assert give(device, "check")[0] == 0
    assert_ends_cleanly(device)
    assert path.stat().st_size == half


def test_detaching_from_a_truncated_file_ends_with_what_can_be_read(
    device: Worker, path: Path
) -> None:
    with opened(device) as swap:
        data = put_on_disk(device, swap, 4096)
        truncate_to_a_half(path)
        lost = unreadable(swap, data, backwards(4096))
        assert give(device, "backing detach")[0] == 0
        assert eventually(lambda: stats(device)["backing_state"] != "detaching")
        told = stats(device)
        assert told["detach_result"] == "unreadable"
        assert len(lost) <= told["backing_pages"] < 4096
        assert unreadable(swap, data, backwards(4096)) == lost
        for page in lost:
            fill(swap, data[page * PAGE : (page + 1) * PAGE], page)
        assert unreadable(swap, data, backwards(4096)) == set()
    assert_ends_cleanly(device)


def test_a_file_without_a_name_goes_on_being_used(device: Worker, path: Path) -> None:
    with opened(device) as swap:
        data = put_on_disk(device, swap, 1024)
        path.unlink()
        assert unreadable(swap, data) == set()
        more = noise(1024)
        fill(swap, more, 1024)
        assert give(device, "writeback huge") == (0, "1024 pages written back\n")
        assert unreadable(swap, data + more) == set()
        assert give(device, "check")[0] == 0
        assert give(device, "backing detach")[0] == 0
        assert eventually(lambda: stats(device)["backing_state"] == "none")
        assert unreadable(swap, data + more) == set()
    assert_ends_cleanly(device)
    assert not path.exists()


# --- A file whose content changes --------------------------------------------------------

# Four pages of noise are a unit: 12 bytes of header, the pages, 16 of tag, and padding (see
# docs/format.md). So it is known which page lies where, if noise alone is written back.
UNIT_PAGES = 4
UNIT_BYTES = 12 + UNIT_PAGES * PAGE + 16
UNIT_STRIDE = -(-UNIT_BYTES // 64) * 64
UNITS_IN_SEGMENT = MIB // UNIT_STRIDE
PAGES_IN_SEGMENT = UNITS_IN_SEGMENT * UNIT_PAGES


def place_of(unit: int) -> int:
    """Where in the file a unit begins; the device's first pages are unit 0."""
    segment, at = divmod(unit, UNITS_IN_SEGMENT)
    return LABEL_SIZE + segment * MIB + at * UNIT_STRIDE


def pages_of(*units: int) -> set[int]:
    return {page for unit in units for page in range(unit * UNIT_PAGES, (unit + 1) * UNIT_PAGES)}


def scribble(path: Path, at: int, data: bytes) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data, at)
        os.fsync(file.fileno())


def flip(path: Path, at: int, bit: int = 0) -> None:
    with path.open("rb") as file:
        byte = os.pread(file.fileno(), 1, at)[0]
    scribble(path, at, bytes([byte ^ 1 << bit]))


@pytest.fixture
def small(disk: Path) -> Path:
    """A new file with room for 8 MiB."""
    path = disk / "small"
    make_file(str(path), 8 * MIB)
    return path


def test_what_was_changed_in_the_file_cannot_be_read(serve: Serve, small: Path) -> None:
    device = serve(backing=str(small))
    with opened(device) as swap:
        data = put_on_disk(device, swap, 4 * PAGES_IN_SEGMENT)
        whole = small.read_bytes()
        first, last = UNITS_IN_SEGMENT, 2 * UNITS_IN_SEGMENT - 1
        changed = {0, 7, 20, 33, 40, 41, 50, first, first + 9, last, 3 * UNITS_IN_SEGMENT}
        flip(small, place_of(0))  # the header
        flip(small, place_of(7) + 8000, 5)
        flip(small, place_of(20) + UNIT_BYTES - 1, 7)  # the tag
        scribble(small, place_of(33), bytes(UNIT_BYTES))
        for one, other in ((40, 41), (41, 40), (50, 51), (first, 2 * first), (last, 5)):
            at = place_of(other)
            scribble(small, place_of(one), whole[at : at + UNIT_BYTES])
        scribble(small, place_of(first + 9) + 100, b"\xff" * 100)
        scribble(small, place_of(3 * UNITS_IN_SEGMENT), os.urandom(PAGE))

        lost = unreadable(swap, data, random.Random(1).sample(range(len(data) // PAGE), 1008))
        assert lost == pages_of(*changed)
        assert unreadable(swap, data) == lost
        told = stats(device)
        assert told["backing_corrupt"] >= len(changed)
        assert told["backing_failed_reads"] == 0
        code, said = give(device, "check")
        assert (code, said.split()[:2]) == (errno.EUCLEAN, ["PROBLEMS:", str(len(changed))])

        scribble(small, LABEL_SIZE, whole[LABEL_SIZE:])
        assert unreadable(swap, data, backwards(len(data) // PAGE)) == set()
        assert give(device, "check")[0] == 0
    assert_ends_cleanly(device)


def test_what_was_read_wrong_once_is_read_again(serve: Serve, small: Path) -> None:
    """The disk, or the way to it, may err once; also in what is read ahead."""
    device = serve(backing=str(small))
    with opened(device) as swap:
        data = put_on_disk(device, swap, PAGES_IN_SEGMENT)
        flip(small, place_of(9) + 100)
        assert unreadable(swap, data) == pages_of(9)
        flip(small, place_of(9) + 100)
        assert unreadable(swap, data) == set()


def test_a_page_that_was_lost_is_good_again_once_it_is_written_or_discarded(
    serve: Serve, small: Path
) -> None:
    device = serve(backing=str(small))
    with opened(device) as swap:
        data = put_on_disk(device, swap, PAGES_IN_SEGMENT)
        flip(small, place_of(3) + 100)
        flip(small, place_of(9) + 100)
        assert errno_of(lambda: os.pwrite(swap, b"a part", 12 * PAGE)) == errno.EIO
        assert unreadable(swap, data) == pages_of(3, 9)
        fill(swap, data[12 * PAGE : 16 * PAGE], 12)
        fallocate(swap, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 36 * PAGE, 4 * PAGE)
        data = data[: 36 * PAGE] + bytes(4 * PAGE) + data[40 * PAGE :]
        assert unreadable(swap, data) == set()
        assert give(device, "check")[0] == 0
    assert_ends_cleanly(device)


def test_an_older_content_of_the_file_is_not_taken_for_the_present_one(
    serve: Serve, small: Path
) -> None:
    """The same pages at the same places, encrypted with the same key: but of another filling."""
    device = serve(backing=str(small))
    with opened(device) as swap:
        older = put_on_disk(device, swap, 2 * PAGES_IN_SEGMENT)
        kept = small.read_bytes()
        newer = put_on_disk(device, swap, len(older) // PAGE)
        present = small.read_bytes()
        assert all(  # the newer ones lie where the older ones did
            kept[place_of(unit) :][:PAGE] != present[place_of(unit) :][:PAGE]
            for unit in range(2 * UNITS_IN_SEGMENT)
        )
        scribble(small, 0, kept)
        pages = len(newer) // PAGE
        assert unreadable(swap, newer, backwards(pages)) == set(range(pages))
        assert unreadable(swap, newer) == set(range(pages))
    assert_ends_cleanly(device)


def test_a_disk_that_is_full_and_damaged_does_not_stop_writers(serve: Serve, small: Path) -> None:
    """What cannot be read cannot be moved together either: it is given up, and not for ever."""
    device = serve(backing=str(small), limit=10)
    with opened(device) as swap:
        data = put_on_disk(device, swap, 7 * PAGES_IN_SEGMENT)
        left = UNITS_IN_SEGMENT - 1  # of each of four disk segments only the last unit lives
        for segment in range(4):
            at = segment * PAGES_IN_SEGMENT * PAGE
            fallocate(swap, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, left * 4 * PAGE)
        for segment in range(2):
            flip(small, place_of(segment * UNITS_IN_SEGMENT + left))
        assert give(device, "memory_limit 12M")[0] == 0
        written = b""
        code = 0
        while not code:
            part, at = noise(256), 16 * MIB + len(written)
            code = errno_of(partial(os.pwrite, swap, aligned(part), at))
            written += b"" if code else part
        assert code == errno.ENOSPC
        assert len(written) >= 4 * MIB
        living = set(range(4 * PAGES_IN_SEGMENT, 7 * PAGES_IN_SEGMENT))
        assert unreadable(swap, data, living) == set()
        for at in range(0, len(written), MIB):
            assert os.pread(swap, MIB, 16 * MIB + at) == written[at : at + MIB]
    assert_ends_cleanly(device)


# --- Secrecy -----------------------------------------------------------------------------

Words = npt.NDArray[np.uint64]


def words_of(data: bytes, step: int) -> Words:
    """The 8 bytes at each multiple of `step`, sorted and without zeros."""
    parts = [np.frombuffer(data, np.uint64, (len(data) - at) // 8, at) for at in range(0, 8, step)]
    found = np.unique(np.concatenate(parts))
    return np.array(found[found != 0], np.uint64)


def holds_a_piece(where: bytes, secret: Words) -> bool:
    """Whether 15 bytes in a row of what `secret` has all words of are anywhere in `where`.

    They hold 8 bytes that lie at a multiple of 8 in `where`. Zeros do not count.
    """
    words = words_of(where, 8)
    at = np.minimum(np.searchsorted(secret, words), len(secret) - 1)
    return bool((secret[at] == words).any())


def memory_of(device: Worker, name: str) -> bytes:
    """What the daemon has in one of its memory files, without the pages of zeros."""
    content = memory_file(device.pid, name).read_bytes()
    pages = (content[at : at + PAGE] for at in range(0, len(content), PAGE))
    return b"".join(page for page in pages if page.count(0) != len(page))


def text(pages: int, marker: bytes) -> bytes:
    """Pages that compress, each with the marker somewhere."""
    words = [os.urandom(6).hex().encode() for _ in range(64)]
    chosen = random.Random(2)
    made = bytearray()
    for _ in range(pages):
        page = bytearray(b" ".join(chosen.choices(words, k=PAGE // 12)))[:PAGE]
        at = chosen.randrange(PAGE - len(marker))
        page[at : at + len(marker)] = marker
        made += page
    return bytes(made)


@pytest.mark.parametrize("codec", ["stored", "lz4", "zstd-fast"])
def test_nothing_of_what_is_written_back_can_be_read_in_the_file(
    codec: str, serve: Serve, small: Path
) -> None:
    marker = os.urandom(64)
    pages = bytearray(noise(128))
    for page in range(128):
        at = page * PAGE + 16 * page
        pages[at : at + len(marker)] = marker
    data = bytes(pages) + text(128, marker)

    device = serve(backing=str(small), codec=codec)
    with opened(device) as swap:
        fill(swap, data)
        packed, key = memory_of(device, "segments"), memory_of(device, "backing")[:32]
        assert marker in packed
        secrets = words_of(data, 1), words_of(packed, 1)
        assert holds_a_piece(packed, secrets[0])  # so it would be found
        said = "256 pages written back\n"
        assert give(device, "writeback page_indexes=0-255") == (0, said)

        def assert_secret(content: bytes) -> None:
            assert marker not in content
            assert key not in content
            for words in secrets:
                assert not holds_a_piece(content, words)

        assert_secret(small.read_bytes())
        assert unreadable(swap, data) == set()
        assert give(device, "check")[0] == 0
        copy = small.with_name("copy")
        shutil.copyfile(small, copy)
        copy.chmod(0o600)
    assert_ends_cleanly(device)
    assert_secret(small.read_bytes())
    assert_secret(device.log.read_bytes())

    other = serve(backing=str(copy))
    told = stats(other)
    assert (told["backing"], told["backing_pages"], told["stored_pages"]) == (str(copy), 0, 0)
    with opened(other) as swap:
        assert os.pread(swap, MIB, 0) == bytes(MIB)
    assert stats(other)["bd_reads"] == 0
    assert memory_of(other, "backing")[:32] != key


# --- Without locked memory ---------------------------------------------------------------


@pytest.fixture
def unlocked() -> tuple[str, ...]:
    """What a program is started with that cannot lock memory."""
    if not all(map(shutil.which, ("setpriv", "prlimit"))):
        pytest.skip("there is no setpriv, or no prlimit")
    tried = subprocess.run(
        [*WITHOUT_LOCKED_MEMORY, "true"], capture_output=True, text=True, timeout=10, check=False
    )
    if tried.returncode:
        pytest.skip(f"the privilege cannot be dropped: {tried.stderr.strip()}")
    return WITHOUT_LOCKED_MEMORY


REFUSAL = (
    "a backing needs locked memory, for its key must not get to a disk; give the daemon "
    "CAP_IPC_LOCK or LimitMEMLOCK=infinity"
)


def test_a_daemon_that_cannot_lock_memory_does_not_start_with_a_backing(
    start: Start, path: Path, unlocked: tuple[str, ...]
) -> None:
    device = start(python=[*unlocked, sys.executable], name="backing-faults", backing=str(path))
    assert device.told == f"error {REFUSAL}"
    assert device.wait() == 2
    assert device.stderr().splitlines()[-1] == f"vswap: {REFUSAL}"
    assert not device.mounted()
    FileBacking.open(str(path)).close()


def test_a_daemon_that_cannot_lock_memory_takes_no_backing_later(
    start: Start, path: Path, unlocked: tuple[str, ...]
) -> None:
    device = start(python=[*unlocked, sys.executable], name="backing-faults")
    assert device.told == "ready", device.stderr()
    code, said = give(device, f"backing attach {path}")
    assert (code, said) == (errno.EINVAL, f"error: {REFUSAL}\n")
    assert stats(device)["backing_state"] == "none"
    FileBacking.open(str(path)).close()
    assert_ends_cleanly(device)


def test_run_without_locked_memory_tells_why_in_a_line(
    mount_point: Path, path: Path, unlocked: tuple[str, ...]
) -> None:
    words = ("run", "--mount", str(mount_point), "--size", "64M", "--backing", str(path))
    done = run_vswap(*words, before=unlocked)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == f"vswap: {REFUSAL}"
    assert "Traceback" not in done.stderr
