"""`vswap serve`: what is looked at before it becomes the daemon, and what it hands to that."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vswap.errors import UserError
from vswapd.cli import bringup, grace, main, place, serve
from vswapd.cli.daemon import locked_log
from vswapd.config import Settings
from vswapd.mounts import Device

if TYPE_CHECKING:
    from daemon.conftest import Systemd

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch
Serve = Callable[[], int]

pytestmark = pytest.mark.usefixtures("kept_signals")


class BecameError(Exception):
    """It would be the daemon now."""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "run" / "swap7.log"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "vswap.toml"
    file.write_text(f"[device.swap7]\nsize = '3M'\nmount = '{tmp_path}/swap7'\n")
    file.chmod(0o644)
    (tmp_path / "swap7").mkdir()
    return file


@pytest.fixture
def commands(log: Path, monkeypatch: Patch) -> list[list[str]]:
    """What it becomes, on a machine that has all that is needed."""
    found: list[list[str]] = []

    def become(command: list[str]) -> None:
        found.append(command)
        raise BecameError

    for variable in ("NOTIFY_SOCKET", "LISTEN_PID", "MAINPID"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(place, "check_fuse", lambda: None)
    monkeypatch.setattr(bringup, "check_free_loop", lambda: None)
    monkeypatch.setattr(serve, "log_path", lambda _name: log)
    monkeypatch.setattr(serve, "become", become)
    return found


@pytest.fixture
def run(config: Path, commands: list[list[str]]) -> Serve:
    return lambda: main(["serve", "swap7", "--config", str(config)])


def test_nobody_brings_the_device_up_until_it_serves(
    run: Serve, commands: list[list[str]], log: Path, monkeypatch: Patch
) -> None:
    """The lock is the daemon's then, which closes it when it serves."""

    def become(command: list[str]) -> None:
        lock = int(command[command.index("--lock-fd") + 1])
        assert os.get_inheritable(lock)
        assert os.path.samestat(os.fstat(lock), log.stat())
        with pytest.raises(UserError, match="is being brought up"), locked_log(log, lambda: None):
            pass
        commands.append(command)
        raise BecameError

    monkeypatch.setattr(serve, "become", become)
    with pytest.raises(BecameError):
        run()
    assert len(commands) == 1


def test_it_does_not_begin_beside_another(
    run: Serve, commands: list[list[str]], log: Path, capsys: Captured
) -> None:
    with locked_log(log, lambda: None):
        assert run() == 2
    assert capsys.readouterr().err == "vswap: swap7 is being brought up already; wait for it\n"
    assert not commands


def test_it_needs_a_free_loop_device_as_up_does(
    run: Serve, commands: list[list[str]], monkeypatch: Patch, capsys: Captured
) -> None:
    def none() -> None:
        raise UserError("no loop device is free")

    monkeypatch.setattr(bringup, "check_free_loop", none)
    assert run() == 2
    assert capsys.readouterr().err == "vswap: no loop device is free\n"
    assert not commands


def test_an_error_of_the_system_is_not_tried_for_ever(
    run: Serve, monkeypatch: Patch, capsys: Captured
) -> None:
    """Status 1 would be, of which nothing is lost here."""

    def become(_command: list[str]) -> None:
        raise OSError(7, "Argument list too long")

    monkeypatch.setattr(serve, "become", become)
    assert run() == 2
    assert capsys.readouterr().err.startswith("vswap: swap7 cannot be served: ")


def test_more_time_is_asked_for_while_a_backing_is_made(
    run: Serve,
    config: Path,
    commands: list[list[str]],
    systemd: Systemd,
    address: str,
    monkeypatch: Patch,
) -> None:
    backing = config.with_name("backing")
    config.write_text(f"{config.read_text()}backing = '{backing}'\n")
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(grace, "_EVERY_SECONDS", 0.001)
    told: list[list[str]] = []

    def make(path: str, size: int, note: Callable[[int], None]) -> None:
        assert (path, size) == (str(backing), 3 << 20)
        for done in range(3):
            note(done)
            before = len(told)
            while len(told) == before:
                told.extend(systemd.hear())

    monkeypatch.setattr(serve, "make_backing", make)
    with pytest.raises(BecameError):
        run()
    assert told[0] == ["EXTEND_TIMEOUT_USEC=30000000"]
    assert "--foreground" not in commands[0]


# --- It is served already --------------------------------------------------------------


@pytest.fixture
def replaced(monkeypatch: Patch, address: str) -> list[int]:
    """The supervisors that are to be replaced, where 4711 serves the device."""
    found: list[int] = []
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(serve, "find_device", lambda name: Device(name, "/nowhere"))
    monkeypatch.setattr(serve, "supervisor_of", lambda _device: 4711)
    monkeypatch.setattr(serve, "replace_supervisor", lambda _device, pid: found.append(pid))
    return found


def test_a_supervisor_in_the_same_unit_is_replaced(
    run: Serve, replaced: list[int], commands: list[list[str]], monkeypatch: Patch
) -> None:
    monkeypatch.setattr(serve, "_cgroup", lambda _pid: "0::/vswap@swap7.service")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    assert run() == 0
    assert (replaced, commands) == ([4711], [])


def test_one_elsewhere_is_let_alone(
    run: Serve, replaced: list[int], monkeypatch: Patch, capsys: Captured
) -> None:
    def check(settings: Settings) -> None:
        raise UserError(f"a daemon already serves {settings.mount}")

    monkeypatch.setattr(serve, "_cgroup", str)
    monkeypatch.setattr(place, "check_mount", check)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    assert run() == 2
    assert capsys.readouterr().err.startswith("vswap: a daemon already serves ")
    assert not replaced
