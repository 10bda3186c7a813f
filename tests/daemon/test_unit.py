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
from vswapd.cli.system import unit

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
    assert found["ExecStart"] == f"{PROGRAM} serve %i"
    assert found["ExecStartPost"] == f"{PROGRAM} attach %i"
    assert found["ExecReload"] == f"{PROGRAM} restart %i"


def test_it_never_gives_up_what_is_kept_and_kills_nobody() -> None:
    found = settings()
    assert found["StartLimitIntervalSec"] == "0"
    assert found["KillMode"] == "process"
    assert found["SendSIGKILL"] == "no"
    assert found["RestartPreventExitStatus"] == "2"


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
