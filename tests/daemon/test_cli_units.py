"""Which of our units are enabled, by their links; which run, as a stand-in for systemctl says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd.cli import main, units

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

ROOT = Path("/")


@pytest.mark.parametrize("name", ["vswap@swap0", "vswap@a.b", "vswap-metrics"])
@pytest.mark.parametrize("kind", ["wants", "requires"])
@pytest.mark.parametrize(("folder", "option"), [("etc", ""), ("run", "--runtime ")])
def test_a_unit_that_is_enabled_is_named(
    name: str, kind: str, folder: str, option: str, tmp_path: Path, capsys: Captured
) -> None:
    links = tmp_path / folder / f"systemd/system/some.target.{kind}"
    links.mkdir(parents=True)
    (links / f"{name}.service").symlink_to("/no/such")
    assert main(["uninstall", "--root", str(tmp_path)]) == 2
    reason = f"vswap: {name} is enabled; `systemctl disable {option}{name}` first\n"
    assert capsys.readouterr().err == reason


@pytest.mark.parametrize("name", ["vswapper.service", "vswap-of-mine.service", "vswap@x.timer"])
def test_a_unit_of_somebody_s_is_none_of_ours(name: str, tmp_path: Path) -> None:
    links = tmp_path / "etc/systemd/system/some.target.wants"
    links.mkdir(parents=True)
    (links / name).symlink_to("/no/such")
    units.check_unused(tmp_path)


def systemctl(folder: Path, patch: Patch, script: str) -> Path:
    """Have systemd run, with a systemctl that is this script; where it notes its words."""
    program, words = folder / "systemctl", folder / "words"
    program.write_text(f'#!/bin/sh\necho "$*" >>{words}\n{script}\n')
    program.chmod(0o755)
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    patch.setattr(units, "_BOOTED", folder)
    patch.setattr(units, "_ENABLED", {})
    return words


def test_a_unit_that_runs_is_named_though_it_is_not_enabled(
    tmp_path: Path, monkeypatch: Patch
) -> None:
    line = "vswap-metrics.service loaded active running Metrics of devices"
    words = systemctl(tmp_path, monkeypatch, f"echo '{line}'")
    reason = "vswap-metrics is running; `systemctl stop vswap-metrics` first"
    with pytest.raises(UserError, match=reason):
        units.check_unused(ROOT)
    said = words.read_text().split()
    assert said[0] == "list-units"
    assert {"--plain", "--no-legend", "vswap@*.service", "vswap-metrics.service"} <= set(said)


def test_nothing_runs(tmp_path: Path, monkeypatch: Patch, capsys: Captured) -> None:
    systemctl(tmp_path, monkeypatch, "")
    units.check_unused(ROOT)
    assert capsys.readouterr().err == ""


def test_a_system_that_is_not_this_one_is_not_asked_for(tmp_path: Path, monkeypatch: Patch) -> None:
    words = systemctl(tmp_path, monkeypatch, "exit 1")
    units.check_unused(tmp_path)
    units.read_again(tmp_path)
    monkeypatch.setattr(units, "_BOOTED", tmp_path / "none")
    units.check_unused(ROOT)
    units.read_again(ROOT)
    assert not words.exists()


@pytest.mark.parametrize(
    ("script", "seconds", "why"),
    [
        ("echo Failed to connect to bus >&2; exit 1", 60, "Failed to connect to bus"),
        ("exec sleep 100", 0.2, "systemctl did not finish within 0.2 s"),
    ],
)
def test_a_systemd_that_does_not_answer_keeps_nobody(
    script: str, seconds: float, why: str, tmp_path: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setattr(units, "_SECONDS", seconds)
    systemctl(tmp_path, monkeypatch, script)
    units.check_unused(ROOT)
    units.read_again(ROOT)
    assert capsys.readouterr().err == (
        f"vswap: warning: systemd does not say what runs: {why}\n"
        f"vswap: warning: systemd has not read its units again: {why}\n"
    )
