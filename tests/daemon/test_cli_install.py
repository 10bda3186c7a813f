"""`vswap install` and `uninstall` in a directory that stands for a system; what is in a wheel."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd.cli import install, main, system
from vswapd.mounts import Device

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

REPOSITORY = Path(__file__).parents[2]
PROGRAM = "/opt/vswap/bin/vswap"
UNIT = "usr/local/lib/systemd/system/vswap@.service"
INSTALLED = [
    "/usr/local/lib/systemd/system/vswap@.service",
    "/usr/local/lib/systemd/system/vswap-metrics.service",
    "/usr/local/share/man/man1/vswap.1",
    "/usr/local/share/man/man8/vswapd.8",
    "/usr/local/share/man/man5/vswap.toml.5",
    "/usr/local/share/bash-completion/completions/vswap",
    "/usr/local/share/zsh/site-functions/_vswap",
    "/usr/local/share/fish/vendor_completions.d/vswap.fish",
    "/usr/local/share/doc/vswap/vswap.toml.example",
    "/usr/local/share/doc/vswap/grafana/vswap.json",
    "/usr/local/share/doc/vswap/prometheus/vswap.rules.yml",
    "/etc/vswap.toml",
    "/usr/local/bin/vswap",
]


@pytest.fixture(autouse=True)
def program(monkeypatch: Patch) -> None:
    monkeypatch.setattr(system, "find_program", lambda: PROGRAM)


def test_it_is_listed_done_and_undone(tmp_path: Path, capsys: Captured) -> None:
    written = "".join(f"write {path}\n" for path in INSTALLED)
    assert main(["install", "--root", str(tmp_path), "--dry-run"]) == 0
    assert capsys.readouterr().out == written
    assert list(tmp_path.iterdir()) == []
    assert main(["install", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == written
    found = {f"/{path.relative_to(tmp_path)}" for path in tmp_path.rglob("*") if path.is_file()}
    assert found == {*INSTALLED, "/var/lib/vswap/installed.json"}
    assert main(["install", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to do\n"
    assert main(["uninstall", "--root", str(tmp_path), "--dry-run"]) == 0
    assert len(list(tmp_path.rglob("*"))) > len(INSTALLED)
    capsys.readouterr()
    assert main(["uninstall", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "".join(f"remove {path}\n" for path in INSTALLED)
    assert list(tmp_path.iterdir()) == []
    assert main(["uninstall", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "nothing to do\n"


def test_the_units_and_the_command_start_the_vswap_that_installed_them(
    tmp_path: Path, capsys: Captured
) -> None:
    assert main(["install", "--root", str(tmp_path)]) == 0
    unit = (tmp_path / UNIT).read_text()
    assert f"\nExecStart={PROGRAM} serve -- %i\n" in unit
    assert f"\nExecStop=-{PROGRAM} down --of-unit -- %i\n" in unit
    assert "@VSWAP@" not in unit.partition("\n[Unit]\n")[2]
    metrics = (tmp_path / UNIT).with_name("vswap-metrics.service").read_text()
    assert f"\nExecStart={PROGRAM} metrics --listen 127.0.0.1:18792\n" in metrics
    command = tmp_path / "usr/local/bin/vswap"
    assert command.read_text() == f'#!/bin/sh\nexec {PROGRAM} "$@"\n'
    assert os.access(command, os.X_OK)


@pytest.mark.parametrize(
    ("prefix", "unit"),
    [("/usr", "usr/lib/systemd/system"), ("/opt/x", "etc/systemd/system")],
)
def test_the_unit_is_where_systemd_looks(prefix: str, unit: str, tmp_path: Path) -> None:
    assert main(["install", "--root", str(tmp_path), "--prefix", prefix]) == 0
    assert (tmp_path / unit / "vswap@.service").is_file()
    assert main(["uninstall", "--root", str(tmp_path)]) == 0


def test_a_configuration_of_somebody_s_is_kept_and_named(tmp_path: Path, capsys: Captured) -> None:
    file = tmp_path / "etc/vswap.toml"
    file.parent.mkdir()
    file.write_text("[device.swap0]\n")
    assert main(["install", "--root", str(tmp_path)]) == 0
    kept = "keep /etc/vswap.toml (changed, or not of vswap install)\n"
    assert kept in capsys.readouterr().out
    assert main(["uninstall", "--root", str(tmp_path)]) == 0
    assert file.read_text() == "[device.swap0]\n"


def test_a_configuration_that_was_changed_is_kept_and_named(
    tmp_path: Path, capsys: Captured
) -> None:
    assert main(["install", "--root", str(tmp_path)]) == 0
    file = tmp_path / "etc/vswap.toml"
    file.write_text("[device.swap0]\n")
    assert main(["uninstall", "--root", str(tmp_path)]) == 0
    assert "keep /etc/vswap.toml" in capsys.readouterr().out
    assert file.read_text() == "[device.swap0]\n"


def test_under_another_prefix_only_after_uninstall(tmp_path: Path, capsys: Captured) -> None:
    assert main(["install", "--root", str(tmp_path)]) == 0
    capsys.readouterr()
    assert main(["install", "--root", str(tmp_path), "--prefix", "/usr"]) == 2
    assert capsys.readouterr().err == (
        "vswap: vswap is installed under /usr/local; `vswap uninstall` first\n"
    )


def test_uninstall_refuses_while_a_device_is_up(monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(install, "devices", lambda: [Device("swap0", "/run/vswap/swap0")])
    assert main(["uninstall", "--dry-run"]) == 2
    reason = "vswap: the device swap0 is up; `vswap down swap0` first\n"
    assert capsys.readouterr().err == reason


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--root", "relative"], "--root 'relative' must be an absolute path"),
        (["--root", "/no/such"], "--root /no/such is no directory"),
        (["--prefix", ""], "--prefix '' must be an absolute path"),
    ],
)
def test_wrong_directories(arguments: list[str], reason: str, capsys: Captured) -> None:
    assert main(["install", *arguments]) == 2
    assert capsys.readouterr().err == f"vswap: {reason}\n"


def test_without_root_it_can_only_be_listed(monkeypatch: Patch, capsys: Captured) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    for command in ("install", "uninstall"):
        assert main([command]) == 2
        assert "needs root" in capsys.readouterr().err


def test_a_program_that_a_unit_cannot_name_is_refused(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.undo()
    place = tmp_path / "a b"
    place.mkdir()
    (place / "vswap").touch(0o755)
    monkeypatch.setattr(sys, "executable", str(place / "python"))
    with pytest.raises(UserError, match="cannot stand in a unit"):
        system.find_program()
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(UserError, match="install vswap with pip"):
        system.find_program()


def test_the_wheel_has_them(tmp_path: Path) -> None:
    """Built of a copy, for setuptools leaves its own things beside the sources."""
    copy = tmp_path / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "vswap", "daemon", "systemd", "pyproject.toml", "README.md"],
        cwd=REPOSITORY,
        capture_output=True,
        check=False,
    )
    if listed.returncode:
        pytest.skip("needs git, and a repository")
    for name in filter(None, os.fsdecode(listed.stdout).split("\0")):
        source, target = REPOSITORY / name, copy / name
        if os.path.lexists(source):
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            else:
                target.write_bytes(source.read_bytes())
    script = "import setuptools.build_meta as b, sys; print(b.build_wheel(sys.argv[1]))"
    built = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=copy,
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    sources = [path for path in (REPOSITORY / "systemd").rglob("*") if path.is_file()]
    assert len(sources) > 4
    with zipfile.ZipFile(wheel) as found:
        assert "vswapd/man/pages.py" in found.namelist()
        for source in sources:
            name = f"vswapd/data/{source.relative_to(REPOSITORY / 'systemd')}"
            assert found.read(name) == source.read_bytes()
