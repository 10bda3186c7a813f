"""How a worker ends: by a signal, by its mount going, by its connection being aborted."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from mount.harness import (
    CONNECTIONS,
    PAGE,
    Start,
    Worker,
    close,
    environment,
    errno_of,
    eventually,
    mount_of,
)

from vswap import libc

pytestmark = pytest.mark.mount

IN_USE = "goes on being served"


def alive(device: Worker) -> bool:
    return device.process.poll() is None


# --- Signals ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts_and_ends_the_worker(number: signal.Signals, device: Worker) -> None:
    device.signal(number)
    assert device.wait() == 0
    assert not device.mounted()


def test_the_end_is_soon(device: Worker) -> None:
    device.signal()
    device.wait(3)


def test_after_a_signal_there_is_no_connection_left(device: Worker) -> None:
    assert device.device is not None
    connection = CONNECTIONS / device.device.split(":")[1]
    before = connection.stat().st_ino
    device.signal()
    device.wait()
    with suppress(FileNotFoundError):  # another device may have its number by now
        assert connection.stat().st_ino != before


def test_a_worker_can_be_started_where_one_has_ended(start: Start) -> None:
    for _ in range(3):
        device = start()
        assert device.told == "ready"
        device.signal()
        assert device.wait() == 0


def test_a_device_in_use_goes_on_being_served(device: Worker, swap: int) -> None:
    os.pwrite(swap, b"kept", 0)
    device.signal()
    assert eventually(lambda: IN_USE in device.stderr())
    assert os.pread(swap, 4, 0) == b"kept"
    assert device.stats()["stored_pages"] == 1
    assert alive(device)


def test_what_to_do_about_a_device_in_use_is_said(device: Worker, swap: int) -> None:
    device.signal()
    assert eventually(lambda: "`vswap down test`" in device.stderr())


def test_once_it_is_not_in_use_another_signal_ends_it(device: Worker) -> None:
    fd = os.open(device.swap, os.O_RDWR)
    device.signal()
    try:
        assert eventually(lambda: IN_USE in device.stderr())
    finally:
        close(fd)
    device.signal()
    assert device.wait() == 0
    assert not device.mounted()


@pytest.mark.parametrize("name", ["stats", "."])
def test_any_open_file_is_use(name: str, device: Worker) -> None:
    fd = os.open(device.mount / name, os.O_RDONLY)
    try:
        device.signal()
        assert eventually(lambda: IN_USE in device.stderr())
        assert alive(device)
    finally:
        close(fd)


def test_many_signals_to_a_device_in_use_do_not_end_it(device: Worker, swap: int) -> None:
    for count in range(1, 6):
        device.signal()
        assert eventually(lambda count=count: device.stderr().count(IN_USE) == count)  # type: ignore[misc]
    os.pwrite(swap, b"still", 0)
    assert os.pread(swap, 5, 0) == b"still"


ANOTHER_SIGNAL = """
import os, signal
import vswapd.fusemount as fusemount
unmount = fusemount.unmount
def twice(*arguments, **keywords):
    unmount(*arguments, **keywords)
    os.kill(os.getpid(), signal.SIGTERM)
fusemount.unmount = twice
"""


def test_another_signal_while_it_is_ending_does_no_harm(start: Start) -> None:
    """It comes when the file system is unmounted, and the worker may not have seen it yet."""
    device = start(supervisor=ANOTHER_SIGNAL)
    device.signal()
    assert device.wait() == 0
    assert not device.mounted()


SIGNAL_AT_THE_END = """
import os, signal
from vswapd.supervisor import Supervisor
leave = Supervisor._leave
def left(*arguments):
    os.kill(os.getpid(), signal.SIGTERM)
    leave(*arguments)
    os.kill(os.getpid(), signal.SIGTERM)
Supervisor._leave = left
"""


def test_a_signal_when_it_has_ended_does_no_harm(start: Start) -> None:
    device = start(supervisor=SIGNAL_AT_THE_END)
    device.signal()
    assert device.wait() == 0
    assert not device.mounted()


NO_UNMOUNT = """
import vswapd.fusemount as fusemount
def refuse(*arguments, **keywords):
    raise {error}
fusemount.unmount = refuse
"""


@pytest.mark.parametrize(
    "error",
    [
        "PermissionError(1, 'Operation not permitted')",
        "FileNotFoundError(2, 'No such file or directory', 'fusermount3')",
        "TimeoutError(110, 'fusermount3 does not end', '/mnt')",
    ],
    ids=["EPERM", "no fusermount3", "fusermount3 hangs"],
)
def test_a_device_that_cannot_be_unmounted_goes_on_being_served(error: str, start: Start) -> None:
    """To end would lose what is swapped out, to no use."""
    device = start(supervisor=NO_UNMOUNT.format(error=error))
    fd = os.open(device.swap, os.O_RDWR)
    try:
        before = device.stderr()
        os.pwrite(fd, b"kept", 0)
        device.signal()
        assert eventually(lambda: device.stderr() != before)
        assert errno_of(lambda: os.pread(fd, 4, 0)) == 0
    finally:
        device.abort()
        close(fd)


FULL_STDERR = """
import os
import vswapd.fusemount as fusemount
reader, writer = os.pipe()
os.set_blocking(writer, False)
for size in (4096, 1):
    try:
        while True:
            os.write(writer, bytes(size))
    except BlockingIOError:
        pass
os.set_blocking(writer, True)
unmount = fusemount.unmount
def full(*arguments, **keywords):
    os.dup2(writer, 2)
    try:
        unmount(*arguments, **keywords)
    finally:
        open(os.environ["TOLD"], "w").close()
fusemount.unmount = full
"""


def test_a_log_that_nobody_reads_does_not_stop_the_device(start: Start, tmp_path: Path) -> None:
    """A terminal that was stopped, or a pager that waits, takes no more lines.

    What has the file open is another process: closing it asks the worker too.
    """
    told = tmp_path / "told"
    device = start(supervisor=FULL_STDERR, env={**environment(), "TOLD": str(told)})
    holder = subprocess.Popen(
        ["sh", "-c", 'exec 3< "$1"; echo; read line', "sh", device.swap],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        holder.stdout.readline()
        device.signal()
        assert eventually(told.exists)
        reader = subprocess.Popen(["cat", device.mount / "stats"], stdout=subprocess.DEVNULL)
        try:
            assert reader.wait(3) == 0
        finally:
            device.abort()
            reader.wait(10)
    finally:
        device.stop()
        holder.communicate(timeout=10)


# --- The mount goes by itself ----------------------------------------------------------


def test_being_unmounted_ends_the_worker(device: Worker) -> None:
    libc.umount2(str(device.mount))
    assert device.wait() == 0


def test_being_unmounted_lazily_ends_the_worker_after_the_last_use(device: Worker) -> None:
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        libc.umount2(str(device.mount), libc.MNT_DETACH)
        assert os.pread(fd, 4, 0) == b"kept"
        assert alive(device)
    finally:
        close(fd)
    assert device.wait() == 0


def test_a_signal_after_being_unmounted_lazily_does_not_end_what_is_used(device: Worker) -> None:
    """The path is not a mount point any more, or is somebody else's."""
    fd = os.open(device.swap, os.O_RDWR)
    try:
        os.pwrite(fd, b"kept", 0)
        libc.umount2(str(device.mount), libc.MNT_DETACH)
        before = device.stderr()
        device.signal()
        assert eventually(lambda: device.stderr() != before)
        assert errno_of(lambda: os.pread(fd, 4, 0)) == 0
    finally:
        close(fd)


# --- Aborted connections ---------------------------------------------------------------


def test_an_aborted_connection_ends_the_worker_and_leaves_no_mount(device: Worker) -> None:
    device.abort()
    device.wait()
    assert not device.mounted()


def test_an_aborted_connection_ends_a_worker_in_use(device: Worker, swap: int) -> None:
    device.abort()
    device.wait()
    assert not device.mounted()
    assert errno_of(lambda: os.pread(swap, PAGE, 0)) in {errno.ENOTCONN, errno.ECONNABORTED}


def test_a_mount_point_given_through_a_link_is_left_clean_too(
    start: Start, mount_point: Path, tmp_path: Path
) -> None:
    """The kernel knows the mount by another path then."""
    (tmp_path / "link").symlink_to(mount_point.parent)
    device = start(mount=tmp_path / "link" / mount_point.name)
    assert device.mounted()
    device.abort()
    device.wait()
    assert not device.mounted()


FAILING_ONCE = """
import os
from vswapd.channel.receiver import Receiver
receive = Receiver.receive
def failing(*arguments, **keywords):
    length = receive(*arguments, **keywords)
    try:
        os.unlink(os.environ["TOKEN"])
    except FileNotFoundError:
        return length
    raise RuntimeError("a fault of ours")
Receiver.receive = failing
"""


def test_the_failure_of_all_data_threads_is_followed_by_another_worker(
    start: Start, tmp_path: Path
) -> None:
    """The supervisor must not take it for an unmount, and what was received is answered."""
    token = tmp_path / "token"
    env = {**environment(), "TOKEN": str(token)}
    device = start(prelude=FAILING_ONCE, threads=1, env=env)
    device.swap.stat()
    token.touch()
    device.stats()
    assert not token.exists()
    assert device.stats()["worker_restarts"] == 1
    device.signal()
    assert device.wait() == 0
    device.log.write_text("")  # a traceback is in order here


# --- Others' mounts --------------------------------------------------------------------

SLOW_TO_END = """
import os
from vswapd.channel import Channel
join = Channel.join
def late(*arguments, **keywords):
    join(*arguments, **keywords)
    with open(os.environ["GATE"]) as gate:
        gate.read()
Channel.join = late
"""


def test_an_ending_worker_does_not_take_away_its_successor_s_mount(
    start: Start, tmp_path: Path
) -> None:
    """Same name, same place: it is told apart by nothing but the mount itself."""
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    old = start(prelude=SLOW_TO_END, env={**environment(), "GATE": str(gate)})
    old.signal()
    assert eventually(lambda: not old.mounted())
    successor = start()
    assert successor.told == "ready"
    gate.write_text("go")
    old.wait()
    assert mount_of(successor.mount) == successor.device


def test_nothing_of_the_worker_is_inherited_by_programs(device: Worker) -> None:
    """A descriptor of /dev/fuse or of the pages would keep the device alive, or leak it."""
    inherited = []
    for link in Path(f"/proc/{device.pid}/fdinfo").iterdir():
        flags = next(line for line in link.read_text().splitlines() if line.startswith("flags:"))
        if int(link.name) > 2 and not int(flags.split()[1], 8) & os.O_CLOEXEC:
            inherited.append(str(Path(f"/proc/{device.pid}/fd/{link.name}").readlink()))
    assert inherited == []


def test_the_worker_has_no_open_file_on_its_own_mount(device: Worker) -> None:
    for link in Path(f"/proc/{device.pid}/fd").iterdir():
        assert not str(link.readlink()).startswith(str(device.mount))


def test_no_contents_in_a_core_dump(device: Worker) -> None:
    """Not dumpable, and no debugger of the same user: /proc has the signs of both."""
    limits = Path(f"/proc/{device.pid}/limits").read_text().splitlines()
    (core,) = (line for line in limits if line.startswith("Max core file size"))
    assert core.split()[4:6] == ["0", "0"]
    maps = Path(f"/proc/{device.pid}/smaps").read_text()
    for name in ("segments", "buffers"):
        flags = maps.split(f"vswap-{name}")[1].split("VmFlags:")[1].splitlines()[0]
        assert "dd" in flags.split()
