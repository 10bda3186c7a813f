"""`vswap doctor`, on this machine and beside devices that are made up."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd import conffile, mounts, tomlfile
from vswapd.cli import backing_look, doctor, main
from vswapd.doctor import CHECKS, Finding, Level

Captured = pytest.CaptureFixture[str]
LINE = re.compile(r"(OK     |warning|failure)  \S.*")
STATS = {"size": 1 << 30, "failed_reads": 0, "worker_restarts": 2, "backing_state": "none"}


@pytest.fixture(autouse=True)
def configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where /etc/vswap.toml would be, and is not yet."""
    monkeypatch.setattr(conffile, "CONFIG", tmp_path / "vswap.toml")
    monkeypatch.setattr(conffile, "DROP_INS", tmp_path / "vswap.d")
    return tmp_path / "vswap.toml"


def write(file: Path, text: str, mode: int = 0o644) -> None:
    file.write_text(text)
    file.chmod(mode)


@pytest.fixture
def mounted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that counts as the mount of the device swap0."""
    point = tmp_path / "swap0"
    point.mkdir()
    line = f"58 27 0:57 / {point} rw - fuse.vswap swap0 rw,user_id=0\n"
    (tmp_path / "mountinfo").write_text(line)
    monkeypatch.setattr(mounts, "_MOUNTINFO", tmp_path / "mountinfo")
    return point


@pytest.fixture
def well(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which nothing is found, so that what else there is shows."""
    monkeypatch.setattr(doctor, "examine", lambda _machine: iter(()))


def test_on_this_machine(capsys: Captured) -> None:
    code = main(["doctor"])
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert captured.err == ""
    assert [line for line in lines if not LINE.fullmatch(line)] == []
    assert len(lines) >= len(CHECKS)
    words = {line.split()[0] for line in lines}
    assert code == (2 if "failure" in words else 1 if "warning" in words else 0)


def test_json(capsys: Captured) -> None:
    code = main(["doctor", "--json"])
    said = json.loads(capsys.readouterr().out)
    assert set(CHECKS) <= {each["check"] for each in said["findings"]}
    assert {tuple(each) for each in said["findings"]} == {("check", "level", "finding", "remedy")}
    assert said["level"] == ("OK", "warning", "failure")[code]


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("change", "code", "line"),
    [
        ({"worker_restarts": 0}, 0, "OK       swap0 answers, and has nothing to complain of"),
        ({}, 1, "warning  swap0 is at its worker number 3"),
        ({"failed_reads": 1}, 2, "failure  swap0 could not give 1 reads"),
    ],
)
def test_devices_and_exit_codes(
    change: dict[str, int], code: int, line: str, mounted: Path, capsys: Captured
) -> None:
    (mounted / "stats.json").write_text(json.dumps({**STATS, **change}))
    assert main(["doctor"]) == code
    assert capsys.readouterr().out.startswith(line)


@pytest.mark.usefixtures("well")
def test_a_device_that_does_not_answer(mounted: Path, capsys: Captured) -> None:
    assert main(["doctor"]) == 2
    assert capsys.readouterr().out.startswith("failure  the daemon of swap0 cannot be asked: cat")


@pytest.mark.usefixtures("well")
def test_devices_that_cannot_be_looked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.setattr(mounts, "_MOUNTINFO", Path("/nosuch/mountinfo"))
    assert main(["doctor"]) == 1
    assert "devices cannot be checked: /nosuch/mountinfo: No such" in capsys.readouterr().out


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("tty", "no_color", "coloured"), [(True, "", True), (True, "1", False), (False, "", False)]
)
def test_colours_are_for_terminals(
    tty: bool,
    no_color: str,
    coloured: bool,
    mounted: Path,
    capsys: Captured,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (mounted / "stats.json").write_text(json.dumps(STATS))
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: tty)
    assert main(["doctor"]) == 1
    assert ("\x1b[33mwarning\x1b[0m" in capsys.readouterr().out) == coloured


# ---------------------------------------------------------------- the configuration


@pytest.mark.usefixtures("well")
def test_a_configuration_need_not_be_there(configuration: Path, capsys: Captured) -> None:
    assert main(["doctor"]) == 0
    usual = f"{configuration} or {configuration.parent}/vswap.d/*.toml"
    line = f"OK       there is no configuration ({usual}), nor need there be one\n"
    assert capsys.readouterr().out == line


@pytest.mark.usefixtures("well")
def test_a_configuration_that_is_right(configuration: Path, capsys: Captured) -> None:
    write(configuration, "[device.a]\n[device.b]\n")
    assert main(["doctor"]) == 0
    line = f"OK       the configuration is right: 2 devices in {configuration}\n"
    assert capsys.readouterr().out == line


@pytest.mark.usefixtures("well")
@pytest.mark.parametrize(
    ("text", "more"), [("codec = 'lzo'", ""), ("codec = 'lzo'\nspares = 9", " (and 1 more)")]
)
def test_a_configuration_that_is_wrong(
    text: str, more: str, configuration: Path, capsys: Captured
) -> None:
    write(configuration, f"[device.a]\nbacking = '/nosuch/b'\n{text}\n")
    assert main(["doctor", "--json"]) == 2
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    place = f"{configuration}: device.a.codec"
    assert found == {
        "check": "configuration",
        "level": "failure",
        "finding": f"the configuration is wrong: {place}: unknown codec 'lzo'; choose one of lz4, "
        f"zstd-fast, zstd, stored{more}",
        "remedy": "`vswap config check` tells everything",
    }


@pytest.mark.usefixtures("well")
def test_a_configuration_for_root_s_eyes(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    write(configuration, "[device.a]\n", 0)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(os, "access", lambda _path, _mode: False)
    monkeypatch.setattr(tomlfile, "_content", refuse)
    assert main(["doctor"]) == 1
    reason = f"{configuration}: cannot be read: Permission denied"
    line = f"warning  the configuration cannot be looked at: {reason}; look again as root\n"
    assert capsys.readouterr().out == line


def refuse(_fd: int) -> bytes:
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@pytest.mark.usefixtures("well", "mounted")
def test_backings_of_the_configuration_are_looked_at(
    configuration: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    """Each once, and not that of a device that is up: it has it."""

    def look(path: str, needed: int | None) -> Iterator[Finding]:
        yield Finding(Level.WARNING, f"{path} for {needed}")

    monkeypatch.setattr(backing_look, "examine_backing", look)
    write(
        configuration,
        "[device.swap0]\nbacking = '/b0'\n[device.a]\nbacking = '/b1'\nbacking-size = '512M'\n"
        "[device.b]\nbacking = '/b2'\n[device.c]\n",
    )
    main(["doctor", "--backing", "/b2", "--backing-size", "1M", "--json"])
    findings = json.loads(capsys.readouterr().out)["findings"]
    found = [each["finding"] for each in findings if each["check"] == "backing"]
    assert found == [f"/b1 for {512 << 20}", f"/b2 for {1 << 20}"]


# ---------------------------------------------------------------- what was typed


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--backing", ""], "backing '' is no file; name one"),
        (["--backing-size", "1G"], "--backing-size is nothing without --backing FILE"),
        (["--backing", "x", "--backing-size", "y"], "backing-size 'y' is not a size"),
        (["extra"], "Got unexpected extra argument (extra)"),
    ],
)
def test_bad_input_is_one_line(args: list[str], reason: str, capsys: Captured) -> None:
    assert main(["doctor", *args]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err.count("\n")) == ("", 1)
    assert captured.err.startswith(f"vswap: {reason}")


def test_the_help_tells_the_exit_codes(capsys: Captured) -> None:
    assert main(["doctor", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "0 if all is OK, 1 with warnings, 2 with failures" in shown


# ---------------------------------------------------------------- a place for a backing


@pytest.mark.usefixtures("well", "mounted")
def test_a_place_that_will_not_do(capsys: Captured) -> None:
    assert main(["doctor", "--backing", "/dev/null"]) == 2
    reason = "/dev/null is neither a regular file nor a block device; name one of these"
    assert f"failure  {reason}" in capsys.readouterr().out


@pytest.mark.usefixtures("well", "mounted")
def test_a_place_with_an_odd_name_is_still_one_line(capsys: Captured) -> None:
    main(["doctor", "--backing", "/no\nsuch/\udcff"])
    lines = capsys.readouterr().out.splitlines()
    assert any(r"/no\x0asuch/\xff" in line for line in lines)
    assert [line for line in lines if not LINE.fullmatch(line)] == []


@pytest.mark.usefixtures("well", "mounted")
def test_a_disk_that_does_not_answer(monkeypatch: pytest.MonkeyPatch, capsys: Captured) -> None:
    monkeypatch.setattr(backing_look, "LOOK_SECONDS", 0.0)
    assert main(["doctor", "--backing", "/nosuch"]) == 2
    assert "the disk of /nosuch does not answer (waited 0 s)" in capsys.readouterr().out


@pytest.mark.usefixtures("well")
def test_a_look_that_fails_is_a_warning(
    mounted: Path, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    (mounted / "stats.json").write_text("{}")
    monkeypatch.setattr(sys, "executable", "false")
    assert main(["doctor", "--backing", "/nosuch"]) == 1
    assert "backing cannot be checked: exit code 1" in capsys.readouterr().out


def test_looking_makes_no_file(disk_folder: Path) -> None:
    path = disk_folder / "b"
    found = list(backing_look.examine_backing(str(path), 1 << 20))
    assert all(isinstance(each, Finding) and each.check == "backing" for each in found)
    assert f"MiB are free for {path}" in " ".join(each.text for each in found)
    assert list(disk_folder.iterdir()) == []


def test_a_file_of_somebody_else_s(disk_folder: Path) -> None:
    path = disk_folder / "b"
    path.write_bytes(bytes(4 << 20))
    path.chmod(0o666)
    (found,) = backing_look.examine_backing(str(path), None)
    assert (found.level, found.line) == (
        Level.FAILURE,
        f"{path} can be read or written by other users; `chmod 600 {path}`",
    )
    path.chmod(0o600)
    found, *_ = backing_look.examine_backing(str(path), None)
    assert (found.level, found.text) == (Level.OK, f"{path} can back a device")


@pytest.fixture
def disk_folder(tmp_path: Path) -> Path:
    """A folder that a backing could lie in."""
    from vswap.store.backing_make import check_path  # noqa: PLC0415

    try:
        check_path(str(tmp_path / "b"))
        os.close(os.open(tmp_path, os.O_TMPFILE | os.O_DIRECT | os.O_RDWR, 0o600))
    except (UserError, OSError) as error:
        pytest.skip(f"no disk for the tests: {error}")
    return tmp_path
