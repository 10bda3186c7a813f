"""A backing of a real device: commands in `ctl`, the files that show it, and `vswap backing`."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from mount.harness import (
    PAGE,
    SIZE,
    Start,
    Worker,
    close,
    environment,
    eventually,
    give,
)

from vswap.errors import UserError
from vswap.store import backing_make
from vswap.store.backing_make import LABEL_SIZE, make_file

pytestmark = pytest.mark.mount

MIB = 1 << 20
SECONDS = 30.0

ALL = "which is all that this device could use"


def backing(device: Worker, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `vswap backing`."""
    process = start_backing(device, *words)
    out, err = process.communicate(timeout=SECONDS)
    return process.returncode, out, err


def start_backing(device: Worker, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "vswapd", "backing", *words, "--device", str(device.mount)],
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def lines(device: Worker) -> dict[str, str]:
    """The file `stats`."""
    return dict(line.split(" ", 1) for line in (device.mount / "stats").read_text().splitlines())


def noise(pages: int) -> bytes:
    return os.urandom(pages * PAGE)


def fill(swap: int, data: bytes) -> None:
    for at in range(0, len(data), MIB):
        os.pwrite(swap, data[at : at + MIB], at)


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
    """A new backing file of 32 MiB, with spaces in its name."""
    path = disk / "a backing file"
    make_file(str(path), 32 * MIB)
    return path


@pytest.fixture
def attached(device: Worker, path: Path) -> Worker:
    """A device that writes to it."""
    said = give(device, f"backing attach {path}")
    assert said == (0, f"{path} is attached: 0 pages in 0 bytes, 32 of 32 MiB free\n")
    return device


# --- Commands ----------------------------------------------------------------------------


def test_pages_go_to_disk_and_are_read_from_there(attached: Worker, swap: int) -> None:
    data = noise(2048)
    fill(swap, data)
    assert give(attached, "writeback page_indexes=0-1023") == (0, "1024 pages written back\n")
    stats = attached.stats()
    assert stats["backing_pages"] == stats["writeback_pages"] == 1024
    assert stats["stored_pages"] == 1024
    count, reads, writes = map(int, (attached.mount / "bd_stat").read_text().split())
    assert (count, reads) == (stats["bd_count"], 0)
    assert 1024 <= count <= writes < 1100
    assert os.pread(swap, MIB, 0) == data[:MIB]
    for page in (100, 777, 1023, 1024):
        assert os.pread(swap, PAGE, page * PAGE) == data[page * PAGE :][:PAGE]
    assert b"".join(os.pread(swap, MIB, at) for at in range(0, len(data), MIB)) == data
    reads = int((attached.mount / "bd_stat").read_text().split()[1])
    assert reads >= 1024
    assert give(attached, "check")[0] == 0


def test_the_files_tell_of_it(attached: Worker, swap: int, path: Path) -> None:
    fill(swap, noise(256))
    assert give(attached, "writeback type=huge") == (0, "256 pages written back\n")
    told = lines(attached)
    assert told["backing"] == str(path)
    assert (told["backing_state"], told["detach_result"]) == ("attached", "-")
    assert told["backing_size"] == str(32 * MIB)
    samples = (attached.mount / "metrics").read_text().splitlines()
    values = dict(line.split() for line in samples if not line.startswith("#"))
    written = values['vswap_backing_written_bytes_total{device="test"}']
    assert float(written) == int(told["bd_writes"]) * PAGE
    assert values['vswap_backing_pages{device="test"}'] == "256.0"


def test_idle_and_a_limit(attached: Worker, swap: int) -> None:
    fill(swap, noise(1024))
    assert give(attached, "writeback idle") == (0, "0 pages written back\n")
    assert give(attached, "idle all") == (0, "1024 pages marked idle\n")
    assert give(attached, "writeback_limit 300")[0] == 0
    assert give(attached, "writeback_limit_enable 1")[0] == 0
    code, said = give(attached, "writeback huge_idle")
    assert code == 0
    assert said.endswith(" pages written back; the limit of the day is used up\n")
    assert attached.stats()["bd_writes"] <= 300
    assert give(attached, "writeback_limit_enable 0")[0] == 0
    code, more = give(attached, "writeback huge_idle")
    assert int(said.split()[0]) + int(more.split()[0]) == 1024


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("writeback", "writeback takes idle|huge|huge_idle|incompressible|page_index=N|page_inde"),
        ("writeback huge", "no backing is attached; `vswap backing attach FILE` attaches one"),
        (f"writeback page_index={SIZE // PAGE}", "the device has pages 0 to 16383, not 16384"),
        ("writeback_limit 1", "no backing is attached"),
        ("writeback_limit_enable 2", "writeback_limit_enable must be 0 or 1, not '2'"),
        ("backing attach b", "backing attach takes an absolute path, not 'b'"),
        ("backing attach /nosuch/a b", "/nosuch/a b does not exist"),
        ("backing attach /dev/null", "/dev/null is neither a regular file nor a block device"),
        ("backing attach /nosuch/a  b", "/nosuch/a  b does not exist"),
        ("backing attach /nosuch/a\nb", "backing attach takes a path without line breaks and NUL"),
        ("backing grow 256M", "no backing is attached"),
        ("backing grow 1G", f"size must be at most 320M, {ALL}, not {1 << 30} bytes"),
        ("backing detach", "no backing is attached"),
    ],
)
def test_a_bad_command_is_einval_with_a_reason(command: str, reason: str, shared: Worker) -> None:
    code, said = give(shared, command)
    assert code == errno.EINVAL
    assert said.startswith(f"error: {reason}")
    assert said.count("\n") == 1


def test_a_backing_from_the_start(start: Start, path: Path) -> None:
    device = start(backing=str(path), writeback_limit=512)
    assert device.told == "ready", device.stderr()
    stats = device.stats()
    assert (stats["backing_size"], stats["writeback_limit"]) == (32 * MIB, 512)
    assert stats["writeback_limit_enable"] is True
    device.signal()
    assert device.wait() == 0
    device = start(backing=str(path), writeback_limit=0)
    assert device.told == "ready", device.stderr()
    assert device.stats()["writeback_limit_enable"] is False


# --- Detaching ---------------------------------------------------------------------------


def test_detach_brings_everything_back(attached: Worker, swap: int, path: Path) -> None:
    data = noise(4096)
    fill(swap, data)
    assert give(attached, "writeback huge") == (0, "4096 pages written back\n")
    assert give(attached, "backing detach") == (
        0,
        "detaching; `stats` tells how far it is, `backing stop` stops it\n",
    )
    assert eventually(lambda: lines(attached)["backing_state"] == "none")
    told = lines(attached)
    assert (told["backing"], told["detach_result"]) == ("-", "detached")
    assert (told["backing_pages"], told["stored_pages"]) == ("0", "4096")
    assert (told["drain_visits"], told["drain_reads"]) == ("8", "17")
    path.unlink()
    assert b"".join(os.pread(swap, MIB, at) for at in range(0, len(data), MIB)) == data
    assert give(attached, "backing") == (
        0,
        "no backing is attached; the last detaching: all came back\n",
    )


# --- `vswap backing` ---------------------------------------------------------------------


def test_the_life_of_a_backing(device: Worker, swap: int, disk: Path) -> None:
    path = disk / "b"
    data = noise(1024)
    fill(swap, data)
    assert backing(device, "attach", str(path), "--size", "8M") == (
        0,
        f"{path} is attached: 0 pages in 0 bytes, 8 of 8 MiB free\n",
        "",
    )
    assert give(device, "writeback huge") == (0, "1024 pages written back\n")
    code, out, err = backing(device, "grow", "16M")
    assert (code, err) == (0, "")
    assert out.endswith(" of 16 MiB free\n")
    assert path.stat().st_size == LABEL_SIZE + 16 * MIB
    code, out, err = backing(device, "grow", "321M")
    assert (code, out) == (2, "")
    assert err == f"vswap: size must be at most 320M, {ALL}, not {321 << 20} bytes\n"
    assert path.stat().st_size == LABEL_SIZE + 16 * MIB
    reason = f"vswap: {path} is attached already; detach it first\n"
    assert backing(device, "attach", str(disk / "c"), "--size", "8M") == (2, "", reason)
    assert sorted(disk.glob("?")) == [path]
    code, out, err = backing(device, "detach")
    assert (code, out) == (0, f"{path} is detached\n")
    assert err == f"detaching {path}: 1024 pages to bring back\n"
    assert os.pread(swap, MIB, 0) == data[:MIB]
    assert backing(device, "detach") == (2, "", "vswap: no backing is attached to test\n")


def test_white_space_in_a_path_is_kept(device: Worker, disk: Path) -> None:
    path = disk / "a  b "
    code, out, _err = backing(device, "attach", str(path), "--size", "8M")
    assert (code, out) == (0, f"{path} is attached: 0 pages in 0 bytes, 8 of 8 MiB free\n")
    assert lines(device)["backing"] == str(path)
    assert list(disk.glob("a*")) == [path]


def test_a_file_that_the_device_could_not_use_is_not_made(device: Worker, disk: Path) -> None:
    code, out, err = backing(device, "attach", str(disk / "b"), "--size", "321M")
    assert (code, out) == (2, "")
    assert err == f"vswap: size must be at most 320M, {ALL}, not {321 << 20} bytes\n"
    assert not (disk / "b").exists()


def test_a_file_that_the_daemon_refuses_is_removed(start: Start, disk: Path) -> None:
    refusing = "from vswapd import memory; memory.prepare_process = lambda warn: "
    device = start(prelude=refusing + "memory.Preparation(False, False, False)")
    code, out, err = backing(device, "attach", str(disk / "b"), "--size", "1M")
    assert (code, out) == (2, "")
    assert err.startswith("vswap: a backing needs locked memory")
    assert not (disk / "b").exists()


# Nothing is brought back while there is a file; the device's own, not that of its warming up.
STEERED = """
import os
import vswap.store.detach as detach
piece = detach.Detach.piece
def steered(self):
    if self._parts.disk.name != {backing!r} or not os.path.exists({gate!r}):
        piece(self)
detach.Detach.piece = steered
"""


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    path = tmp_path / "gate"
    path.touch()
    return path


@pytest.fixture
def steered(start: Start, path: Path, gate: Path) -> Worker:
    """A device that brings nothing back as long as there is a gate, with 2048 pages on disk."""
    prelude = STEERED.format(backing=str(path), gate=str(gate))
    device = start(prelude=prelude, backing=str(path))
    assert device.told == "ready", device.stderr()
    fd = os.open(device.swap, os.O_RDWR)
    fill(fd, noise(2048))
    close(fd)
    assert give(device, "writeback huge") == (0, "2048 pages written back\n")
    return device


def start_detach(device: Worker, path: Path) -> subprocess.Popen[str]:
    """`vswap backing detach`, when it waits."""
    process = start_backing(device, "detach")
    assert process.stderr is not None
    assert process.stderr.readline() == f"detaching {path}: 2048 pages to bring back\n"
    assert lines(device)["backing_state"] == "detaching"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_a_detaching_and_the_next_one_goes_on(
    number: int, steered: Worker, path: Path, gate: Path
) -> None:
    process = start_detach(steered, path)
    process.send_signal(number)
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (130, "")
    assert err == (
        f"vswap: stopped; 2048 pages are still on {path}, and readable; "
        "`vswap backing detach` goes on\n"
    )
    told = lines(steered)
    assert (told["backing_state"], told["detach_result"]) == ("attached", "stopped")
    gate.unlink()
    assert backing(steered, "detach")[:2] == (0, f"{path} is detached\n")
    assert give(steered, "check")[0] == 0


def test_memory_that_does_not_suffice_ends_a_detaching(
    steered: Worker, path: Path, gate: Path
) -> None:
    assert give(steered, "backing detach")[0] == 0
    assert give(steered, "memory_limit 10M")[0] == 0
    process = start_detach(steered, path)
    gate.unlink()
    out, err = process.communicate(timeout=SECONDS)
    left = steered.stats()["backing_pages"]
    assert (process.returncode, out) == (2, "")
    assert 0 < left < 2048
    assert err.startswith(f"vswap: {left} pages are still on {path}, and readable: memory is too ")
    assert err.count("\n") == 1
    assert give(steered, "check")[0] == 0
    code, out, err = backing(steered, "detach")
    assert (code, out) == (2, "")
    assert err.startswith(f"vswap: memory would not hold what is on {path}")


def test_a_daemon_that_dies_while_it_detaches(steered: Worker, path: Path) -> None:
    process = start_detach(steered, path)
    steered.kill()
    out, err = process.communicate(timeout=SECONDS)
    assert (process.returncode, out) == (2, "")
    assert err == "vswap: the daemon of test is gone; `vswap down test` clears the rest\n"
