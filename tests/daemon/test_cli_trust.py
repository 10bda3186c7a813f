"""What a unit runs as root is only root's; whoever else could change it is named."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vswapd.cli import main, system, trust
from vswapd.cli.trust import who_could_change

Captured = pytest.CaptureFixture[str]
Patch = pytest.MonkeyPatch

OWNERS = {0, os.getuid()}
OTHERS = "can be written by others than its owner"


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "venv/bin/vswap"
    path.parent.mkdir(parents=True)
    path.touch()
    for each in (path, path.parent, path.parent.parent):
        each.chmod(0o755)
    return path


def found(path: Path) -> str | None:
    return who_could_change([path], OWNERS)


def test_what_is_only_its_owner_s_is_trusted(program: Path) -> None:
    """Though it is in /tmp, where everybody writes, but replaces nothing of another's."""
    assert found(program) is None


@pytest.mark.parametrize("mode", [0o775, 0o757])
@pytest.mark.parametrize("above", [0, 1, 2])
def test_what_others_write_is_named(mode: int, above: int, program: Path) -> None:
    path = [program, *program.parents][above]
    path.chmod(mode)
    assert found(program) == f"{path} {OTHERS}"


def test_the_highest_that_is_another_s_is_named(program: Path) -> None:
    assert who_could_change([program], ()) == f"/ belongs to user {Path('/').stat().st_uid}"


def test_a_link_is_judged_by_where_it_is_and_where_it_leads(program: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(program)
    assert found(tmp_path / "link") is None
    program.parent.chmod(0o777)
    assert found(tmp_path / "link") == f"{program.parent} {OTHERS}"
    program.parent.chmod(0o755)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "open/link").symlink_to(program)
    assert found(tmp_path / "open/link") == f"{tmp_path / 'open'} {OTHERS}"


def test_what_is_not_there_is_nobody_s(tmp_path: Path) -> None:
    assert found(tmp_path / "no/such") is None


def test_an_installation_warns_in_one_line_and_goes_on(
    program: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    program.chmod(0o777)
    monkeypatch.setattr(system, "find_program", lambda: str(program))
    monkeypatch.setattr(trust, "_OWNERS", OWNERS)
    assert main(["install", "--dry-run"]) == 0
    out, err = capsys.readouterr()
    assert "vswap@.service" in out
    assert err == (
        f"vswap: warning: root would run what others can change: {program} {OTHERS}; "
        "install vswap where that is not so\n"
    )


def test_a_program_that_is_not_in_the_other_system_is_told(
    program: Path, tmp_path: Path, monkeypatch: Patch, capsys: Captured
) -> None:
    monkeypatch.setattr(system, "find_program", lambda: "/opt/vswap/bin/vswap")
    root = tmp_path / "root"
    root.mkdir()
    assert main(["install", "--root", str(root), "--dry-run"]) == 0
    told = f"there is no /opt/vswap/bin/vswap in {root}, which the units are to start"
    assert capsys.readouterr().err == f"vswap: warning: {told}\n"
    (root / "opt/vswap/bin").mkdir(parents=True)
    (root / "opt/vswap/bin/vswap").symlink_to("/opt/elsewhere")
    assert main(["install", "--root", str(root), "--dry-run"]) == 0
    assert capsys.readouterr().err == ""
