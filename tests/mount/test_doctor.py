"""`vswap doctor` and `vswap status` beside a device that serves, as root and as somebody else."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from mount.harness import Worker, run_vswap
from mount.test_user import as_nobody, nobody

pytestmark = pytest.mark.mount

SECONDS = 60.0

User = tuple[str, dict[str, str]]
__all__ = ["nobody"]  # the fixture


def on_devices(said: str) -> list[str]:
    findings = json.loads(said)["findings"]
    return [each["finding"] for each in findings if each["check"] == "devices"]


def test_a_device_that_serves_is_found(device: Worker) -> None:
    done = run_vswap("doctor", "--json", seconds=SECONDS)
    assert (done.returncode in (0, 1, 2), done.stderr) == (True, "")
    found = on_devices(done.stdout)
    assert any(text.startswith(("test answers", "test does without")) for text in found)


def test_a_device_that_is_gone_is_a_failure(device: Worker) -> None:
    device.kill()
    done = run_vswap("doctor", seconds=SECONDS)
    assert done.returncode == 2
    assert "failure  the daemon of test is gone; `vswap down test` clears the rest" in done.stdout


def test_a_user_needs_no_root_and_is_told_what_it_would_show(
    device: Worker, nobody: User, tmp_path: Path
) -> None:
    tmp_path.chmod(0o700)
    python, env = nobody
    path = tmp_path / "b"
    done = as_nobody([python, "-m", "vswapd", "doctor", "--backing", str(path)], env)
    assert done.stderr == ""
    assert done.returncode in (1, 2)
    assert "warning  this is not root: swap cannot be enabled" in done.stdout
    assert "run it as root, or give it CAP_SYS_RESOURCE" in done.stdout
    assert re.search(r"  test (answers|does without)", done.stdout)
    assert (
        f"backing cannot be checked: {path}: Permission denied; look again as root" in done.stdout
    )


def test_the_status_of_a_real_device(device: Worker) -> None:
    with device.swap.open("r+b", buffering=0) as file:
        file.write(bytes(range(256)) * 256)
    chosen = ("-nrb", "-o", "NAME,SIZE,DATA,ALGORITHM,LIMIT,PID")
    done = run_vswap("status", str(device.mount), *chosen, seconds=SECONDS)
    assert done.returncode == 0
    pid = str(device.pid)
    assert done.stdout.split() == ["test", str(64 << 20), "65536", "zstd-fast", "-", pid]
    chosen = ("--output-all", "--raw", "--noheadings")
    everything = run_vswap("status", str(device.mount), *chosen, seconds=SECONDS)
    restarts, uptime = everything.stdout.split()[15:17]
    assert restarts == "0"
    assert uptime.endswith("s")
