"""A start that comes to nothing: one line why, exit code 2, and nothing left behind."""

from __future__ import annotations

import json
import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from mount.harness import SIZE, Start, mount_of, run_worker, settings, started

pytestmark = pytest.mark.mount

MIB = 1 << 20


def start_in_vain(json_settings: str, mount: Path, log: Path) -> tuple[str, int, str]:
    """What is told on the ready descriptor, the exit code, and stderr without warnings."""
    with started(mount, log, json_settings) as worker:
        code = worker.wait()
        lines = worker.stderr().splitlines()
    assert mount_of(mount) is None
    return worker.told, code, "\n".join(line for line in lines if "warning: " not in line)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.touch()
    return path


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


# --- Places that cannot be mounted on --------------------------------------------------

PLACES: dict[str, Callable[[Path], Path]] = {
    "missing": lambda at: at / "missing",
    "a file": lambda at: at / "file",
    "below a file": lambda at: at / "file" / "mnt",
    "missing, not UTF-8": lambda at: at / os.fsdecode(b"\xff"),
    "too long": lambda at: at / ("x" * 5000),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("allow_fusermount", [False, True], ids=["root", "fusermount"])
def test_a_bad_mount_point(
    place: str, allow_fusermount: bool, file: Path, fusectl: None, log: Path
) -> None:
    mount = PLACES[place](file.parent)
    chosen = settings(mount, allow_fusermount=allow_fusermount)
    told, code, said = start_in_vain(chosen, mount, log)
    assert code == 2
    unusable = f"error mount point {str(mount)!r} cannot be used: "
    assert told.startswith(unusable if place == "too long" else "error cannot mount on ")
    assert said == "vswap: " + told.removeprefix("error ")


def test_no_path_at_all(fusectl: None, log: Path) -> None:
    """Neither UTF-8 nor bytes in disguise; nothing but JSON can say it."""
    chosen = json.dumps({"name": "m", "mount": "/\ud800", "size": SIZE})
    told, code, said = start_in_vain(chosen, Path("/nowhere"), log)
    assert (code, told[:6]) == (2, "error ")
    assert "Traceback" not in said


# --- Settings that are none ------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        '{"name": "m", "mount": "/nowhere"}',
        '{"name": "m", "mount": "/nowhere", "size": 4095}',
        '{"name": "m", "mount": "/nowhere", "size": "1G"}',
        '{"name": "m", "mount": "/nowhere", "size": 4096, "codec": "gzip"}',
        '{"name": "m", "mount": "nowhere", "size": 4096}',
        '{"name": "m", "mount": "/nowhere", "size": 4096, "colour": "red"}',
        "[" * 100_000,
    ],
    ids=lambda text: text[:60],
)
def test_bad_settings(text: str, tmp_path: Path, log: Path) -> None:
    told, code, said = start_in_vain(text, tmp_path / "nowhere", log)
    assert code == 2
    assert told.startswith("error ")
    assert said == "vswap: " + told.removeprefix("error ")


def test_nobody_need_wait_for_the_reason() -> None:
    done = run_worker("{")
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("vswap: ")
    assert len(done.stderr.splitlines()) == 1


def test_a_ready_descriptor_that_is_not_open(tmp_path: Path) -> None:
    done = run_worker(settings(tmp_path / "missing"), "--ready-fd", "77")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


# --- Machines that cannot --------------------------------------------------------------


def test_a_memory_limit_too_small_for_the_threads(start: Start) -> None:
    device = start(threads=16, memory_limit=8 * MIB)
    assert device.told.startswith("error ")
    assert "memory" in device.told
    assert device.wait() == 2
    assert not device.mounted()


def limited(kind: int, value: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(kind, (value, value))


def test_too_few_descriptors(start: Start) -> None:
    device = start(preexec=limited(resource.RLIMIT_NOFILE, 12))
    assert device.told.startswith("error ")
    assert device.wait() == 2
    assert not device.mounted()


def test_too_little_address_space(start: Start) -> None:
    device = start(size=1 << 40, preexec=limited(resource.RLIMIT_AS, 1 << 30))
    assert device.told.startswith("error ")
    assert device.wait() == 2
    assert not device.mounted()


@pytest.mark.parametrize("size", [4096, 1 << 40])
def test_the_smallest_and_a_large_device_start(size: int, start: Start) -> None:
    device = start(size=size)
    assert device.told == "ready"
    assert device.stats()["size"] == size


# --- Failing on the way ----------------------------------------------------------------
#
# What goes wrong between mounting and `ready` is played in the worker itself.


def failing(where: str, how: str) -> str:
    return f"""
import os, signal
import vswapd.worker as worker
from vswap.errors import *
def fail(*arguments, **keywords):
    {how}
{where} = fail
"""


FAULTS = {
    "no INIT": ("worker.channel.handshake", "raise UserError('the kernel sent nothing')"),
    "no lane": ("worker.Store.lane", "raise FullError('no segment is free')"),
    "no pyfuse3": ("worker.Bridge.start", "raise RuntimeError('fuse_session_new() failed')"),
    "pyfuse3 refuses": ("worker.Bridge.greet", "raise ProtocolError('refused')"),
    "pyfuse3 is silent": ("worker.Bridge.greet", "raise worker.trio.TooSlowError"),
    "pyfuse3 fails": ("worker.pyfuse3.main", "raise RuntimeError('fuse_session_receive failed')"),
    "no memory": ("worker.Store.maintain", "raise OSError(12, 'Cannot allocate memory')"),
    "no descriptor": ("worker.Bridge.__init__", "raise OSError(24, 'Too many open files')"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_on_the_way_is_told_and_undone(fault: str, start: Start) -> None:
    device = start(prelude=failing(*FAULTS[fault]))
    assert device.told.startswith("error ")
    assert device.wait() == 2
    assert not device.mounted()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("where", ["worker.channel.handshake", "worker.Bridge.start"])
def test_a_signal_during_the_start_leaves_no_mount(
    where: str, number: signal.Signals, start: Start
) -> None:
    how = f"os.kill(os.getppid(), {int(number)}); signal.pause()"
    device = start(prelude=failing(where, how))
    assert device.told != "ready"
    device.wait()
    assert not device.mounted()


TWO_SIGNALS = """
import os, signal
import vswapd.fusemount as fusemount
unmount = fusemount.unmount
def interrupted(*arguments, **keywords):
    os.kill(os.getpid(), signal.SIGTERM)
    unmount(*arguments, **keywords)
fusemount.unmount = interrupted
"""
INTERRUPT = failing("worker.channel.handshake", "os.kill(os.getppid(), signal.SIGTERM)")


def test_a_second_signal_does_not_keep_a_start_from_being_undone(start: Start) -> None:
    device = start(supervisor=TWO_SIGNALS, prelude=INTERRUPT)
    device.wait()
    assert not device.mounted()
