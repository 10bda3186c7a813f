"""What a unit of systemd does, with a stand-in for systemd: serve, attach, again, down.

Nothing is swapped out to the device.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from mount.harness import abort, eventually, family, mount_of
from mount.systemd import Systemd
from swap_support import left_behind, loops_of, run, start_vswap, swaps, tear_down, vswap

NAME = f"served-{os.getpid()}"
TEXT = "[device.{name}]\nmount = '{point}'\nswapon = {swapon}\ntune = false\nsize = '16M'\n"
READY_SECONDS = 20.0


class Unit:
    """One device, and how its unit starts it."""

    def __init__(self, directory: Path) -> None:
        self.point = directory / "at"
        self.point.mkdir()
        self.config = directory / "vswap.toml"
        self.configure()
        self.config.chmod(0o644)
        self.systemd = Systemd(directory / "notify")
        self.main: subprocess.Popen[bytes] | None = None

    def configure(self, swapon: str = "false") -> None:
        self.config.write_text(TEXT.format(name=NAME, point=self.point, swapon=swapon))

    def serve(self) -> subprocess.Popen[bytes]:
        arguments = ["-m", "vswapd", "serve", NAME, "--config", str(self.config)]
        return self.systemd.run(arguments, {"WATCHDOG_USEC": "200000"})

    def start(self) -> subprocess.Popen[bytes]:
        self.systemd.hear().told.clear()
        self.main = main = self.serve()
        assert eventually(lambda: self.systemd.has_heard("READY=1"), READY_SECONDS), self.said()
        assert self.systemd.has_heard(f"MAINPID={main.pid}")
        return main

    def vain_start(self) -> int:
        """The status of one that does not become the main process."""
        process = self.serve()
        try:
            assert eventually(lambda: bool(self.systemd.hear()) and process.poll() is not None, 30)
        finally:
            process.kill()
        return process.wait()

    def attach(self) -> subprocess.CompletedProcess[str]:
        return vswap("attach", NAME, "--config", str(self.config))

    def tell(self, *arguments: str) -> tuple[int, str, str]:
        """A command that has the daemon say more to systemd than fits into a socket's queue."""
        process = start_vswap(*arguments)
        assert eventually(lambda: bool(self.systemd.hear()) and process.poll() is not None, 30)
        out, err = process.communicate()
        return process.returncode, out, err

    def said(self) -> str:
        return self.systemd.log.read_text()


@pytest.fixture
def unit(tmp_path: Path) -> Iterator[Unit]:
    made = Unit(tmp_path)
    try:
        yield made
    finally:
        if left_behind(made.point):
            tear_down(made.point)
        if made.main is not None:
            made.main.kill()
            made.main.wait()
        made.systemd.close()


def killed(main: subprocess.Popen[bytes]) -> None:
    for pid in family(main.pid):
        os.kill(pid, 9)
    main.wait()


def test_the_next_main_process_goes_on_with_loop_device_and_data(unit: Unit) -> None:
    main = unit.start()
    assert eventually(lambda: unit.systemd.has_heard("WATCHDOG=1"))
    # One that finds the queue full is dropped, and the next comes ten seconds later.
    assert eventually(lambda: "STATUS=0 pages" in "\n".join(unit.systemd.hear().told), 25)
    loop = unit.attach().stdout.strip()
    assert loops_of(unit.point) == [loop]
    data = os.urandom(4096)
    Path(loop).write_bytes(data)

    killed(main)
    unit.config.write_text("size =")  # what is wrong by now does not keep it from going on
    main = unit.start()
    assert f"{NAME} goes on as it was" in unit.said()
    unit.configure()
    again = unit.attach()
    assert (again.returncode, again.stdout.strip()) == (0, loop)
    assert loops_of(unit.point) == [loop]
    read = run("dd", f"if={loop}", "bs=4096", "count=1", "iflag=direct", f"of={unit.config}.out")
    assert read.returncode == 0, read.stderr
    assert Path(f"{unit.config}.out").read_bytes() == data

    code, out, err = unit.tell("down", NAME)
    assert (code, out) == (0, ""), err
    assert main.wait(10) == 0
    assert unit.systemd.hear().kept == []
    assert left_behind(unit.point) == []


def test_after_a_restart_the_heir_is_the_main_process_before_the_old_one_ends(unit: Unit) -> None:
    main = unit.start()
    unit.systemd.hear().told.clear()
    code, out, err = unit.tell("restart", NAME)
    assert (code, out) == (0, f"{NAME} is served by a new daemon\n"), err
    assert main.wait(10) == 0  # it does not stay for the heir, as for a shell
    told = unit.systemd.hear().told
    (heir,) = {int(line[8:]) for line in told if line.startswith("MAINPID=")}
    assert heir != main.pid
    assert unit.tell("down", NAME)[0] == 0
    assert eventually(lambda: not Path(f"/proc/{heir}").exists())


def test_a_mistake_ends_it_with_status_2_and_one_line(unit: Unit) -> None:
    unit.config.write_text("[device.x]\nsize = '5'\n")
    done = vswap("serve", "x", "--config", str(unit.config))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    done = vswap("serve", NAME, "--config", str(unit.config))
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


def test_what_is_left_of_a_dead_device_is_no_reason_to_try_again(unit: Unit) -> None:
    """Its connection has closed, and the configuration is wrong by now: that is a mistake."""
    main = unit.start()
    loop = unit.attach().stdout.strip()
    killed(main)
    dead = mount_of(unit.point)
    assert dead is not None
    abort(dead)
    try:
        unit.config.write_text("size =")
        assert unit.vain_start() == 2
        assert unit.said().count("\n") == 1, unit.said()
        assert unit.systemd.hear().kept == []
        assert mount_of(unit.point) is None
        unit.configure()
        unit.start()
        attached = unit.attach()
        assert attached.returncode == 0, attached.stderr
        assert loops_of(unit.point) == [attached.stdout.strip()] != [loop]
    finally:
        assert run("losetup", "-d", loop).returncode == 0
    assert unit.tell("down", NAME)[0] == 0


def test_what_nobody_serves_cannot_be_attached(unit: Unit) -> None:
    done = unit.attach()
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr


@pytest.mark.parametrize("handed", [True, False], ids=["systemctl restart", "stop and start"])
def test_a_supervisor_that_could_not_be_stopped_is_taken_back(handed: bool, unit: Unit) -> None:
    """Its device is in use; what was kept is handed to the next start only if that is one."""
    old = unit.start()
    loop = unit.attach().stdout.strip()
    data = os.urandom(4096)
    Path(loop).write_bytes(data)
    unit.systemd.hear().told.clear()
    if not handed:
        for name in set(unit.systemd.names()):
            unit.systemd.remove(name)
    assert unit.vain_start() == 0, unit.said()
    assert old.wait(10) == 0
    told = unit.systemd.hear().told
    assert "READY=1" in told
    (heir,) = {int(line[8:]) for line in told if line.startswith("MAINPID=")}
    assert heir != old.pid
    assert "vswap-record" in unit.systemd.names()
    assert loops_of(unit.point) == [loop]
    read = run("dd", f"if={loop}", "bs=4096", "count=1", "iflag=direct", f"of={unit.config}.out")
    assert read.returncode == 0, read.stderr
    assert Path(f"{unit.config}.out").read_bytes() == data
    code, _, err = unit.tell("down", NAME)
    assert code == 0, err
    assert eventually(lambda: not Path(f"/proc/{heir}").exists())


def test_attach_swaps_on_the_device_and_on_no_other_s(unit: Unit) -> None:
    unit.start()
    loop = unit.attach().stdout.strip()
    Path(loop).write_bytes(b"a disk of somebody's")
    unit.configure(swapon="true")
    refused = unit.attach()
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    assert Path(loop).read_bytes().startswith(b"a disk of somebody's")
    assert f"{loop} " not in swaps()

    assert run("losetup", "-d", loop).returncode == 0
    done = unit.attach()
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    loop = done.stdout.strip()
    assert loops_of(unit.point) == [loop]
    assert f"{loop} " in swaps()
    assert unit.attach().stdout.strip() == loop  # twice does no harm

    assert run("swapoff", loop).returncode == 0
    again = unit.attach()  # what bears our label is ours
    assert (again.returncode, again.stdout.strip()) == (0, loop), again.stderr
    assert f"{loop} " in swaps()
    code, _, err = unit.tell("down", NAME)
    assert code == 0, err
    assert left_behind(unit.point) == []
