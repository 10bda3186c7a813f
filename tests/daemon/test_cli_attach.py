"""`vswap attach`: what is there is recognised, and what fails is undone. None is attached here."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd.cli import attach, bringup, main
from vswapd.mounts import Device
from vswapd.swapdev import SwapArea

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

LOOP = "/dev/loop77"
AREA = SwapArea(LOOP, 1 << 30, 0, -2)


@pytest.fixture
def steps(monkeypatch: Patch) -> list[str]:
    """What is done to a machine on which swap0 is served."""
    done: list[str] = []

    def noted(name: str, answer: str | None = None) -> Callable[..., str | None]:
        def step(*_arguments: object) -> str | None:
            done.append(name)
            return answer

        return step

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(attach, "find_device", lambda name: Device(name, "/run/vswap/swap0"))
    monkeypatch.setattr(attach, "loop_devices", lambda _device: [])
    monkeypatch.setattr(attach, "swap_area", lambda _loop: None)
    monkeypatch.setattr(attach, "has_label", lambda _loop, _label: True)
    monkeypatch.delenv("MAINPID", raising=False)
    monkeypatch.setattr(bringup, "attach_loop", noted("attach", LOOP))
    monkeypatch.setattr(bringup, "_tune_kernel", noted("tune"))
    monkeypatch.setattr(bringup, "_detach_all", noted("detach"))
    monkeypatch.setattr(bringup, "restrict", noted_settling(done))
    monkeypatch.setattr(bringup, "make_swap", noted("mkswap"))
    monkeypatch.setattr(bringup, "enable_swap", noted("swapon"))
    monkeypatch.setattr(bringup, "disable_swap", noted("swapoff"))
    return done


pytestmark = pytest.mark.usefixtures("kept_signals")


@pytest.fixture
def config(tmp_path: Path) -> str:
    file = tmp_path / "vswap.toml"
    file.write_text("[device.swap0]\n")
    file.chmod(0o644)
    return str(file)


def noted_settling(done: list[str]) -> Callable[..., None]:
    def restrict(_loop: str, *, settled: bool = True) -> None:
        done.extend(["settled"] * settled)

    return restrict


def test_all_is_made(steps: list[str], config: str, capsys: Captured) -> None:
    assert main(["attach", "swap0", "--config", config]) == 0
    assert steps == ["attach", "tune", "mkswap", "swapon", "settled"]
    assert capsys.readouterr().out == f"{LOOP}\n"


def test_a_device_that_is_swapped_on_is_left_as_it_is(
    steps: list[str], monkeypatch: Patch, capsys: Captured
) -> None:
    """Whatever the configuration says by now."""
    monkeypatch.setattr(attach, "loop_devices", lambda _device: ["/dev/loop1", LOOP])
    monkeypatch.setattr(attach, "swap_area", lambda loop: AREA if loop == LOOP else None)
    assert main(["attach", "swap0", "--config", "/no/such/file"]) == 0
    assert (steps, capsys.readouterr().out) == ([], f"{LOOP}\n")


def test_a_loop_device_that_is_there_is_used_and_never_undone(
    steps: list[str], config: str, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(attach, "loop_devices", lambda _device: [LOOP])
    monkeypatch.setattr(bringup, "enable_swap", _fail)
    assert main(["attach", "swap0", "--config", config]) == 2
    assert steps == ["tune", "mkswap", "swapoff"]


def test_what_fails_is_undone(
    steps: list[str], config: str, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setattr(bringup, "enable_swap", _fail)
    assert main(["attach", "swap0", "--config", config]) == 2
    assert steps == ["attach", "tune", "mkswap", "swapoff", "detach"]
    assert capsys.readouterr().err == "vswap: no swap today\n"


@pytest.fixture
def foreign(steps: list[str], monkeypatch: Patch) -> list[str]:
    """What is done to a machine on which something else is on the loop device that is there."""
    monkeypatch.setattr(attach, "loop_devices", lambda _device: [LOOP])
    monkeypatch.setattr(attach, "has_label", lambda _loop, _label: False)
    monkeypatch.setattr(attach, "read_stats", lambda _device: {"stored_pages": 7})
    return steps


def test_what_somebody_has_put_on_the_loop_device_stays(
    foreign: list[str], config: str, capsys: Captured
) -> None:
    assert main(["attach", "swap0", "--config", config]) == 2
    assert foreign == []
    assert f"{LOOP} is attached to swap0 and has something else" in capsys.readouterr().err


def test_a_loop_device_that_nothing_was_written_to_is_swapped_on(
    foreign: list[str], config: str, monkeypatch: Patch
) -> None:
    stats = {"stored_pages": 0, "backing_pages": 0, "same_pages": 0}
    monkeypatch.setattr(attach, "read_stats", lambda _device: stats)
    assert main(["attach", "swap0", "--config", config]) == 0
    assert foreign == ["tune", "mkswap", "swapon", "settled"]


def test_without_swapon_a_loop_device_that_is_there_is_all(
    foreign: list[str], config: str, capsys: Captured
) -> None:
    Path(config).write_text("[device.swap0]\nswapon = false\ntune = false\n")
    assert main(["attach", "swap0", "--config", config]) == 0
    assert (foreign, capsys.readouterr().out) == ([], f"{LOOP}\n")


def test_a_unit_s_device_that_is_not_swapped_on_goes_on_as_it_was(
    foreign: list[str], monkeypatch: Patch, capsys: Captured
) -> None:
    """Whatever the configuration says by now."""
    monkeypatch.setenv("MAINPID", "4711")
    assert main(["attach", "swap0", "--config", "/no/such/file"]) == 0
    assert (foreign, capsys.readouterr().out) == ([], f"{LOOP}\n")


def test_a_unit_s_device_that_was_about_to_be_swapped_on_is(
    steps: list[str], config: str, monkeypatch: Patch
) -> None:
    monkeypatch.setenv("MAINPID", "4711")
    monkeypatch.setattr(attach, "loop_devices", lambda _device: [LOOP])
    assert main(["attach", "swap0", "--config", config]) == 0
    assert steps == ["tune", "mkswap", "swapon", "settled"]


def test_a_loop_device_that_is_all_is_settled_too(steps: list[str], config: str) -> None:
    Path(config).write_text("[device.swap0]\nswapon = false\ntune = false\n")
    assert main(["attach", "swap0", "--config", config]) == 0
    assert steps == ["attach", "settled"]


def test_a_device_that_is_not_configured_is_not_swapped_on(
    steps: list[str], config: str, capsys: Captured
) -> None:
    """Somebody may have made it with other intentions."""
    assert main(["attach", "swap9", "--config", config]) == 2
    assert steps == []
    assert capsys.readouterr().err.startswith("vswap: no device 'swap9' in ")


def test_it_needs_root(monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert main(["attach", "swap0"]) == 2
    assert capsys.readouterr().err == "vswap: attach needs root\n"


def _fail(*_arguments: object) -> None:
    raise UserError("no swap today")
