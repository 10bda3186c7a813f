"""`down`'s swapoff beside another one: the programs stand for the real, which tests/swap has."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from vswap.errors import UserError
from vswapd.cli import down, grace, swapoff
from vswapd.cli.interrupt import interrupts
from vswapd.mounts import Device
from vswapd.swapdev import SwapArea

if TYPE_CHECKING:
    from daemon.conftest import Systemd

AREA = SwapArea("/dev/loop7", 1 << 20, 1 << 12, -2)
REFUSED = "echo swapoff: /dev/loop7: swapoff failed: Invalid argument >&2; exit 255"
FAILED = "echo swapoff: /dev/loop7: swapoff failed: Cannot allocate memory >&2; exit 255"

CHECK_ROOM = swapoff._check_room

Enabled = list[SwapArea]
Programs = Callable[[list[str]], None]


pytestmark = pytest.mark.usefixtures("kept_signals")


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> Enabled:
    """The areas that are enabled: this one, until a program ends well."""
    areas = [AREA]
    monkeypatch.setattr(swapoff, "_POLL_SECONDS", 0.001)
    monkeypatch.setattr(swapoff, "_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(swapoff, "_OTHERS_IDLE_SECONDS", 0.01)
    monkeypatch.setattr(swapoff, "_check_room", lambda *_: None)
    monkeypatch.setattr(swapoff, "worthwhile", lambda _area: False)
    monkeypatch.setattr(swapoff, "swap_area", lambda _path: areas[0] if areas else None)
    return areas


@pytest.fixture
def programs(enabled: Enabled, monkeypatch: pytest.MonkeyPatch) -> Programs:
    """Say what each swapoff does that is started."""

    def use(scripts: list[str]) -> None:
        def start(_path: str) -> subprocess.Popen[bytes]:
            script = scripts.pop(0)
            if script == "true":
                enabled.clear()
            pipe = subprocess.PIPE
            return subprocess.Popen(["sh", "-c", script], stdout=pipe, stderr=pipe)

        monkeypatch.setattr(swapoff, "start_swapoff", start)

    return use


def take_off() -> None:
    with interrupts() as signals:
        swapoff.swap_off(Device("swap0", "/nowhere"), AREA, signals)


def test_systemd_is_asked_for_time_while_memory_and_another_swapoff_are_waited_for(
    programs: Programs,
    enabled: Enabled,
    systemd: Systemd,
    address: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As the unit's ExecStop: each wait goes on until it has been asked for more time."""
    told = 0

    def asked() -> bool:
        nonlocal told
        heard = systemd.hear()
        told += len(heard)
        return bool(heard)

    def wait(_seconds: float) -> None:
        while not asked():
            pass

    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(grace, "_EVERY_SECONDS", 0.001)
    monkeypatch.setattr(swapoff, "_check_room", CHECK_ROOM)
    monkeypatch.setattr(swapoff, "room_for_swapoff", lambda _area: 0 if told else 1)
    monkeypatch.setattr(swapoff, "tightest", lambda *_: None)
    monkeypatch.setattr(time, "sleep", wait)
    monkeypatch.setattr(down, "swap_area", lambda _path: AREA)
    monkeypatch.setattr(down, "detach_loop", _stop_here)
    programs([REFUSED, "true"])
    with interrupts() as signals, pytest.raises(UserError, match="detached"):
        down._take_down(Device("swap0", "/nowhere"), [AREA.path], signals)
    assert told >= 2
    assert not enabled


def _stop_here(_loop: str) -> None:
    raise UserError("detached")


def test_another_swapoff_is_waited_for_and_followed(programs: Programs, enabled: Enabled) -> None:
    scripts = [REFUSED, REFUSED, "true"]
    programs(scripts)
    take_off()
    assert not enabled
    assert not scripts


def test_another_swapoff_that_succeeds_is_as_good(
    programs: Programs, enabled: Enabled, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs([REFUSED])
    monkeypatch.setattr(time, "sleep", lambda _seconds: enabled.clear())
    take_off()


def test_another_swapoff_that_does_not_get_on_is_not_waited_for_for_ever(
    programs: Programs, capsys: pytest.CaptureFixture[str]
) -> None:
    programs([REFUSED] * 20)
    with pytest.raises(UserError, match=r"swap is still on: .*Invalid argument"):
        take_off()
    assert capsys.readouterr().err.count("another swapoff of /dev/loop7 is at work") == 1


def test_a_swapoff_that_fails_is_not_tried_again(programs: Programs, enabled: Enabled) -> None:
    programs([REFUSED, FAILED])
    with pytest.raises(UserError, match=r"swap is still on: .*Cannot allocate memory"):
        take_off()
    assert enabled == [AREA]
