"""The programs that make requests and fill memory, on a plain file and without pressure."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bench.build import BuildError, build

PAGE = 4096
SECONDS = 60.0


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """1 MiB, no page like another."""
    path: Path = tmp_path_factory.mktemp("source") / "source"
    path.write_bytes(random.Random(1).randbytes(1 << 20))
    return path


def program(name: str) -> Path:
    try:
        return build(name, Path(__file__).resolve().parents[2] / "bench" / "out")
    except BuildError as error:
        pytest.skip(str(error))


def blkload(device: Path, *options: str) -> dict[str, Any]:
    argv = [str(program("blkload")), "--device", str(device), *options, "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=SECONDS, check=False)
    if "Invalid argument" in done.stderr:
        pytest.skip("this file system has no O_DIRECT")
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def pages(path: Path) -> list[bytes]:
    data = path.read_bytes()
    return [data[at : at + PAGE] for at in range(0, len(data), PAGE)]


def test_random_writes_are_pages_of_the_source_all_over_the_device(
    source: Path, tmp_path: Path
) -> None:
    device = tmp_path / "device"
    device.write_bytes(bytes(64 * PAGE))
    options = ["--rw", "randwrite", "--block", "4K", "--source", str(source)]
    done = blkload(device, *options, "--bytes", str(1024 * PAGE), "--streams", "4")
    assert done["bytes"] == 1024 * PAGE
    written = set(pages(device))
    assert written <= set(pages(source))
    assert len(written) > 32


def test_a_time_limit_ends_before_the_bytes_do(source: Path, tmp_path: Path) -> None:
    device = tmp_path / "device"
    device.write_bytes(bytes(64 * PAGE))
    done = blkload(
        *(device, "--rw", "randread", "--block", "4K", "--bytes", "1G"),
        *("--streams", "2", "--seconds", "0.01"),
    )
    assert 0 < done["bytes"] < 1 << 30
    assert done["latency_us"]["p50"] <= done["latency_us"]["p99"] <= done["latency_us"]["max"]


def test_a_held_hog_waits_for_a_line(source: Path) -> None:
    argv = [*(str(program("hog")), "--size", "1M", "--source", str(source)), "--hold", "--json"]
    with subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as hog:
        assert hog.stdout is not None
        assert hog.stdout.readline() == "filled\n"
        assert hog.poll() is None
        output, _ = hog.communicate("\n", timeout=SECONDS)
    found = json.loads(output)
    assert found["result"] == "ok"
    assert [phase["phase"] for phase in found["phases"]] == ["fill", "verify 1"]
    assert found["user_seconds"] >= 0
