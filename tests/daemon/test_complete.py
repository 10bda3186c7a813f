"""Completion: what is offered for a device, and what a real bash makes of the script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from vswapd import conffile
from vswapd.cli import complete, main
from vswapd.cli.complete import SHELLS, device_names
from vswapd.cli.group import _vswap as root
from vswapd.mounts import Device

SOURCES = [str(Path(__file__).parents[2] / part) for part in ("", "daemon")]
Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch


def names(incomplete: str) -> list[str]:
    parameter = click.Argument(["device"])
    items = device_names(click.Context(root), parameter, incomplete)
    return [str(item.value) for item in items]


@pytest.fixture
def devices(monkeypatch: Patch, tmp_path: Path) -> Path:
    """Two are up, two are configured, one of them both; and where that stands."""
    there = [Device("swap0", "/run/vswap/swap0"), Device("other", "/mnt/other")]
    monkeypatch.setattr(complete, "devices", lambda: there)
    file = tmp_path / "vswap.toml"
    file.write_text("[device.swap0]\n[device.swap1]\nsize = 'nonsense'\n")
    file.chmod(0o644)
    monkeypatch.setattr(conffile, "CONFIG", file)
    monkeypatch.setattr(conffile, "DROP_INS", tmp_path / "none")
    return file


@pytest.mark.usefixtures("devices")
def test_devices_that_are_there_or_configured() -> None:
    assert names("") == ["other", "swap0", "swap1"]
    assert names("sw") == ["swap0", "swap1"]
    assert names("x") == []


def test_a_configuration_that_cannot_be_read_is_no_error(devices: Path) -> None:
    devices.write_text("[")
    assert names("") == ["other", "swap0"]


@pytest.mark.parametrize("shell", SHELLS)
def test_each_shell_has_a_script(shell: str, capsys: Captured) -> None:
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert f"_VSWAP_COMPLETE={shell}_complete" in out
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=out, text=True, capture_output=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_every_command_that_takes_a_device_completes_it() -> None:
    def commands(group: click.Group) -> list[click.Command]:
        found: list[click.Command] = []
        for command in group.commands.values():
            found += commands(command) if isinstance(command, click.Group) else [command]
        return found

    taking = [
        (command, parameter)
        for command in commands(root)
        for parameter in command.params
        if parameter.name == "device"
    ]
    assert len(taking) > 6
    for command, parameter in taking:
        with click.Context(command) as context:
            found = parameter.shell_complete(context, "")
        expected = device_names(context, parameter, "")
        assert [item.value for item in found] == [item.value for item in expected], command.name


ASK = """
eval "$(vswap completion bash)"
COMP_WORDS=({words}) COMP_CWORD={at}
_vswap_completion vswap
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


def asked_of_bash(tmp_path: Path, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    program = tmp_path / "vswap"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m vswapd "$@"\n')
    program.chmod(0o755)
    quoted = " ".join(f"'{word}'" for word in ("vswap", *words))
    done = subprocess.run(
        ["bash", "--norc", "-c", ASK.format(words=quoted, at=len(words))],
        env={
            **os.environ,
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join(SOURCES),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_a_real_bash_completes_commands_options_and_shells(tmp_path: Path) -> None:
    assert asked_of_bash(tmp_path, "un") == ["uninstall"]
    assert asked_of_bash(tmp_path, "config", "") == ["check", "show"]
    assert asked_of_bash(tmp_path, "up", "--mem") == ["--memory-limit"]
    assert asked_of_bash(tmp_path, "completion", "f") == ["fish"]
