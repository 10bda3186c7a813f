"""Completion: what is offered for a device, and what a real bash makes of the script."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.shell_completion import CompletionItem

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


def commands(group: click.Group) -> list[click.Command]:
    found: list[click.Command] = []
    for command in group.commands.values():
        found += commands(command) if isinstance(command, click.Group) else [command]
    return found


def offered(command: click.Command, parameter: click.Parameter) -> list[CompletionItem]:
    with click.Context(command) as context:
        return parameter.shell_complete(context, "")


TAKING = [(command, parameter) for command in commands(root) for parameter in command.params]


def test_every_command_that_takes_a_device_completes_it() -> None:
    taking = [(command, each) for command, each in TAKING if each.name == "device"]
    assert len(taking) > 6
    for command, parameter in taking:
        expected = device_names(click.Context(command), parameter, "")
        found = [item.value for item in offered(command, parameter)]
        assert found == [item.value for item in expected], command.name


@pytest.mark.parametrize(("metavar", "kind"), [("FILE", "file"), ("DIR", "dir")])
def test_whatever_takes_a_path_leaves_it_to_the_shell(metavar: str, kind: str) -> None:
    taking = [
        (command, each)
        for command, each in TAKING
        if each.make_metavar(click.Context(command)) == metavar
    ]
    assert len(taking) > 4
    for command, parameter in taking:
        (item,) = offered(command, parameter)
        assert item.type == kind, (command.name, parameter.name)


def test_whatever_takes_one_of_some_words_offers_them() -> None:
    taking = [
        (command, each, words)
        for command, each in TAKING
        if isinstance(each, click.Option) and (words := (each.metavar or "").split("|"))[1:]
    ]
    assert len(taking) > 8
    for command, parameter, words in taking:
        found = [item.value for item in offered(command, parameter)]
        assert found == [word for word in words if not word.isupper()], parameter.name


ASK = """
eval "$(vswap completion bash)"
compopt() {{ printf '%s\\n' "$*"; }}  # bash has one only while it completes
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


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("up --codec z", "zstd-fast zstd"),
        ("run --codec = l", "lz4"),  # as bash divides --codec=l
        ("up --unit-pages 1", "1 16"),
        ("up --spares ", "0 1 2"),
        ("up --memory-limit n", "none"),
        ("status -o S", "SIZE SWAP STATE"),
        ("status --output NAME,si", "NAME,SIZE"),
        ("status --output NAME,na", ""),
        ("status -o name,size,AL", "name,size,ALGORITHM"),
        ("man vswap", "vswap vswapd vswap.toml"),
        ("ctl rec", "recompress"),
        ("ctl backing ", "attach grow detach stop status"),
        ("ctl writeback i", "idle incompressible"),
        ("ctl memory_limit ", "none"),
        ("ctl presence ", ""),
        ("ctl recompress ", ""),
        ("ctl nonsense ", ""),
        ("ctl backing grow ", ""),
        ("up --config ", "-o default"),
        ("up --config = /etc/vs", "-o default"),
        ("up --backing x", "-o default"),
        ("doctor --backing ", "-o default"),
        ("report -o ", "-o default"),
        ("report swap0 -o ", "-o default"),
        ("backing attach /d", "-o default"),
        ("ctl backing attach ", "-o default"),
        ("run --mount ", "-o dirnames"),
        ("install --prefix /u", "-o dirnames"),
        ("uninstall --root ", "-o dirnames"),
    ],
)
def test_a_real_bash_completes_values_and_paths(line: str, wanted: str, tmp_path: Path) -> None:
    assert " ".join(asked_of_bash(tmp_path, *line.split(" "))) == wanted


def test_fish_takes_a_list_of_columns_as_one_value() -> None:
    assert 'string split --max 1 ","' in complete.script("fish", root)
    assert 'string split ","' not in complete.script("fish", root)
