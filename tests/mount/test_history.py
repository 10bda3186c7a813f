"""The history of a real device, from one worker to the next."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from typing import Any

import pytest
from mount.harness import Start, Worker, environment, eventually, give
from mount.test_report import FASTER

pytestmark = pytest.mark.mount

SECONDS = 30


def history(device: Worker) -> dict[str, Any]:
    found = json.loads((device.mount / "history.json").read_bytes())
    assert isinstance(found, dict)
    return found


def times(device: Worker) -> list[int]:
    return [row[0] for row in history(device)["series"][0]["rows"]]


def restart(device: Worker) -> None:
    """As after an upgrade; what was said on stderr is the test's failure."""
    done = subprocess.run(
        [sys.executable, "-m", "vswapd", "restart", str(device.mount)],
        env=environment(),
        capture_output=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def stop(device: Worker) -> None:
    """End whoever supervises it now."""
    os.kill(device.stats()["supervisor_pid"], signal.SIGTERM)
    assert eventually(lambda: not device.mounted())


def test_it_goes_on_when_the_worker_is_killed(start: Start) -> None:
    device = start(prelude=FASTER)
    assert device.told == "ready", device.stderr()
    assert eventually(lambda: len(times(device)) > 1)
    before, worker = history(device), device.serving()
    assert worker is not None
    os.kill(worker, signal.SIGKILL)
    assert eventually(lambda: device.serving() not in (None, worker))
    after = history(device)
    assert times(device)[: len(before["series"][0]["rows"])] == [
        row[0] for row in before["series"][0]["rows"]
    ]
    assert after["began"] == before["began"] > 0
    assert before["takeovers"] == []
    (takeover,) = after["takeovers"]
    assert takeover["worker_restarts"] == after["worker_restarts"] == 1
    assert after["began"] <= takeover["time"] <= after["worker_began"] + 1
    assert eventually(lambda: times(device)[-1] > takeover["time"])
    assert give(device, "check")[0] == 0


def test_it_goes_on_when_all_processes_are_replaced(start: Start) -> None:
    device = start()
    assert device.told == "ready", device.stderr()
    began = history(device)["began"]
    restart(device)
    restart(device)
    found = history(device)
    assert found["began"] == began
    assert [each["worker_restarts"] for each in found["takeovers"]] == [1, 2]
    stop(device)


def test_code_that_would_lay_it_out_otherwise_begins_anew(start: Start) -> None:
    """And the device is served all the same. The heir is without what the first one had before."""
    device = start(prelude=FASTER)
    assert device.told == "ready", device.stderr()
    assert eventually(lambda: times(device) != [])
    restart(device)
    assert history(device)["series"][0] == {"interval": 10, "rows": []}
    first = history(device)
    assert [each["worker_restarts"] for each in first["takeovers"]] == [1]
    restart(device)
    found = history(device)
    assert found["began"] == first["began"]
    assert [each["worker_restarts"] for each in found["takeovers"]] == [1, 2]
    stop(device)
