"""The unit files: what their settings have to be, and what they must not."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from vswap.geometry import Geometry
from vswap.store import Shape, State
from vswapd import mounts
from vswapd.cli import down, main
from vswapd.cli.system import unit
from vswapd.doctor import rights
from vswapd.mounts import Device

PROGRAM = "/bin/true"
# systemd.exec(5): each of these gives a service a mount namespace of its own.
NAMESPACES = re.compile(
    r"^(Private(?!Users)\w*|Protect\w*|ProcSubset|ReadOnlyPaths|ReadWritePaths|InaccessiblePaths|"
    r"NoExecPaths|ExecPaths|Bind\w*Paths|TemporaryFileSystem|Root\w+|Mount\w+|DynamicUser)=",
    re.M,
)
DENYING = re.compile(r"^(Device\w+|RestrictRealtime|MemoryDenyWriteExecute|UMask)=", re.M)


def settings() -> dict[str, str]:
    """By name, those that occur once."""
    lines = [line for line in unit(PROGRAM).splitlines() if re.match(r"\w+=", line)]
    pairs = [line.split("=", 1) for line in lines]
    names = [name for name, _ in pairs]
    return {name: value for name, value in pairs if names.count(name) == 1}


def test_the_device_is_mounted_where_everybody_sees_it() -> None:
    assert NAMESPACES.findall(unit(PROGRAM)) == []
    assert DENYING.findall(unit(PROGRAM)) == []
    assert NAMESPACES.match("ProtectSystem=yes")  # so that the pattern can find something


def test_systemd_keeps_all_there_is() -> None:
    state = State.create(Shape(Geometry(16 << 20), segments=8, buffers=64, buffer_size=2 << 20))
    beside = len(("fuse", "backing", "history", "record"))
    try:
        assert int(settings()["FileDescriptorStoreMax"]) >= len(state.fds()) + beside
    finally:
        state.close()


def test_it_is_ready_when_swap_is() -> None:
    found = settings()
    assert found["Type"] == "notify"
    assert found["NotifyAccess"] == "all"


@pytest.mark.usefixtures("kept_signals")
@pytest.mark.parametrize("setting", ["ExecStart", "ExecStartPost", "ExecStop", "ExecReload"])
def test_each_command_is_one_for_a_device_of_whatever_name(
    setting: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of one that is not there, and whose name looks like an option."""
    monkeypatch.setenv("MAINPID", "4711")
    monkeypatch.delenv("LISTEN_PID", raising=False)
    monkeypatch.setattr(mounts, "devices", list)
    monkeypatch.setattr(down, "devices", lambda: [Device("other", "/run/vswap/other")])
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    program, *arguments = settings()[setting].removeprefix("-").split()
    assert program == PROGRAM
    assert main([argument.replace("%i", "-x") for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert "no device '-x' in" in said or "no vswap device is here" in said, said


# --- When it is started again ----------------------------------------------------------

# systemd.service(5), Restart=: what is no reason for it.
NO_REASON = {
    "on-failure": {"success"},
    "on-abnormal": {"success", "exit-code"},
    "on-abort": {"success", "exit-code", "timeout", "watchdog"},
}


def is_started_again(result: str, status: int | None) -> bool:
    """By what went wrong first, and the main process's exit status unless a signal ended it."""
    found = settings()
    if str(status) in found.get("RestartPreventExitStatus", "").split():
        return False
    if str(status) in found.get("RestartForceExitStatus", "").split():
        return True
    return result not in NO_REASON[found["Restart"]]


@pytest.mark.parametrize(
    ("result", "status"),
    [
        pytest.param("signal", None, id="all is killed"),
        pytest.param("watchdog", None, id="the supervisor hangs"),
        pytest.param("exit-code", 1, id="what was kept cannot be gone on with this time"),
        pytest.param("timeout", 0, id="loop device and swap hang"),
    ],
)
def test_what_was_kept_is_gone_on_with(result: str, status: int | None) -> None:
    assert is_started_again(result, status)
    assert settings()["StartLimitIntervalSec"] == "0"  # however often


@pytest.mark.parametrize(
    ("result", "status"),
    [
        pytest.param("success", 0, id="`vswap down` by hand"),
        pytest.param("exit-code", 2, id="a mistake that `serve` finds"),
        pytest.param("exit-code", 0, id="one that `attach` finds: the supervisor is stopped"),
    ],
)
def test_nothing_is_tried_for_ever(result: str, status: int) -> None:
    assert not is_started_again(result, status)


def test_what_is_swapped_out_is_not_killed_when_it_cannot_be_taken_back() -> None:
    found = settings()
    assert found["KillMode"] == "process"
    assert found["SendSIGKILL"] == "no"


# --- What it may do --------------------------------------------------------------------


def values(name: str) -> list[str]:
    """All words of a setting, however often it occurs."""
    lines = re.findall(rf"^{name}=(.*)$", unit(PROGRAM), re.M)
    return [word for line in lines for word in line.split()]


def test_it_keeps_the_rights_that_it_uses() -> None:
    found = values("CapabilityBoundingSet")
    used = {name for name in vars(rights) if name.startswith("CAP_")}
    assert len(used) >= 4
    assert used | {"CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_KILL"} <= set(found)
    assert not {"CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_TIME", "CAP_SYS_BOOT"} & set(found)
    assert not any(name.startswith("~") for name in found)


def test_no_call_kills_it_and_those_it_needs_are_let_through() -> None:
    first, *others = values("SystemCallFilter")
    assert first.startswith("~")  # all but these
    groups = {first[1:], *others}
    assert "@debug" in groups
    assert not {"@mount", "@swap", "@privileged", "@resources", "@memlock", "@process"} & groups
    assert settings()["SystemCallErrorNumber"] == "EPERM"


def test_the_metrics_do_not_try_a_mistake_for_ever() -> None:
    assert "\nRestartPreventExitStatus=2\n" in unit(PROGRAM, "vswap-metrics.service")


def test_each_setting_has_a_reason_above_it() -> None:
    blocks = unit(PROGRAM).split("\n\n")
    for block in blocks[1:]:
        first = block.splitlines()[0]
        assert first.startswith(("#", "[Unit]", "[Service]", "[Install]", "Description")), first


@pytest.mark.parametrize("name", ["vswap@.service", "vswap-metrics.service"])
def test_systemd_understands_it(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    # What is documented is not installed here, and what is not there cannot be looked at.
    text = re.sub(r"^Documentation=.*\n", "", unit(PROGRAM, name), flags=re.M)
    (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)],
        env={**os.environ, "SYSTEMD_LOG_LEVEL": "warning"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
