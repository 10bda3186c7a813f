"""`vswap metrics`: printed, served, and what bad input gets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vswapd import scraper
from vswapd.cli import main
from vswapd.cli import metrics as module
from vswapd.mounts import Device

SOURCES = [str(Path(__file__).parents[2] / part) for part in ("", "daemon")]
SECONDS = 20
ONE = "# HELP vswap_size_bytes Size\n# TYPE vswap_size_bytes gauge\n"


pytestmark = pytest.mark.usefixtures("kept_signals")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Device:
    """The one device there is: a directory in the place of its mount."""
    device = Device("swap0", str(tmp_path))
    (tmp_path / "metrics").write_text(ONE + 'vswap_size_bytes{device="swap0"} 4096.0\n')
    monkeypatch.setattr(scraper, "devices", lambda: [device])
    return device


@pytest.mark.parametrize(
    ("args", "reason"),
    [
        (["--public"], "--public is nothing without --listen ADDRESS"),
        (["swap0", "--listen", "127.0.0.1:0"], "--listen serves all devices; leave DEVICE out"),
        (["--listen", "9100"], "'9100' is no address; say 127.0.0.1:18792, [::1]:18792 or"),
        (["--listen", "0.0.0.0:9100"], "0.0.0.0:9100 can be reached from other machines; if they"),
        (["--listen", "[::]:9100"], "[::]:9100 can be reached from other machines; if they may"),
        (["--listen", "unix:/proc/nowhere/x"], "cannot listen at unix:/proc/nowhere/x: there is"),
        (["no-such"], "no "),
    ],
)
def test_bad_input_is_one_line_and_2(
    args: list[str], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["metrics", *args]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"vswap: {reason}")
    assert said.err.count("\n") == 1


def test_metrics_are_printed(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert 'vswap_up{device="swap0"} 1\n' in said.out
    assert said.out.endswith('vswap_size_bytes{device="swap0"} 4096.0\n')


def test_one_device_s(
    place: Device, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scraper, "devices", lambda: pytest.fail("nobody else is asked"))
    monkeypatch.setattr(module, "find_device", lambda selector: place)
    assert main(["metrics", "swap0"]) == 0
    assert 'vswap_size_bytes{device="swap0"} 4096.0\n' in capsys.readouterr().out


def test_who_does_not_answer_is_said(place: Device, capsys: pytest.CaptureFixture[str]) -> None:
    Path(place.mount, "metrics").unlink()
    assert main(["metrics"]) == 1
    said = capsys.readouterr()
    assert 'vswap_up{device="swap0"} 0\n' in said.out
    assert said.err.startswith("vswap: the daemon of swap0 cannot be asked: ")
    assert said.err.count("\n") == 1


def test_without_a_device(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scraper, "devices", list)
    assert main(["metrics"]) == 0
    assert capsys.readouterr().err == "no vswap device is here; `vswap up` makes one\n"


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", "--help"]) == 0
    assert "vswap metrics --listen 127.0.0.1:18792 " in capsys.readouterr().out


# --- As a process ----------------------------------------------------------------------


@contextmanager
def serving(address: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and what it has said when it listens."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    command = [sys.executable, "-W", "error", "-m", "vswapd", "metrics", "--listen", address]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            yield process, process.stderr.readline()
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_on_a_signal_and_leaves_nothing(number: signal.Signals, tmp_path: Path) -> None:
    path = tmp_path / "metrics.sock"
    with serving(f"unix:{path}") as (process, said):
        assert said == f"vswap: unix:{path} has the metrics\n"
        assert path.is_socket()
        process.send_signal(number)
        assert process.wait(SECONDS) == 130
        assert process.stderr is not None
        assert process.stderr.read() == (
            f"vswap: interrupted; nothing listens at unix:{path} any more\n"
        )
        assert not path.exists()


def test_a_port_that_is_taken_is_one_line_and_1() -> None:
    """Not the exit code of a mistake: the unit tries again."""
    with serving("127.0.0.1:0") as (_, said):
        port = said.split(":")[3].split("/")[0]
        with serving(f"127.0.0.1:{port}") as (second, refused):
            assert second.wait(SECONDS) == 1
            assert refused == (
                f"vswap: cannot listen at 127.0.0.1:{port}: something listens there already\n"
            )
            assert second.stderr is not None
            assert second.stderr.read() == ""
