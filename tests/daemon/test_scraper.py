"""Asking all devices at once, whatever their daemons do."""

from __future__ import annotations

import errno
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from vswap.errors import UserError
from vswapd import scraper as module
from vswapd.mounts import Device
from vswapd.scraper import Answer, Scraper
from vswapd.swapdev import start_program

SECONDS = 10
ONE = "a file of a device's\n"


@pytest.fixture
def place(tmp_path: Path) -> Device:
    """A directory in the place of a mount."""
    (tmp_path / "metrics").write_text(ONE)
    return Device("swap0", str(tmp_path))


def test_the_file_is_read(place: Device) -> None:
    assert Scraper().ask([place]) == [Answer(place, "swap0", ONE)]


def test_nobody_is_asked_if_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "devices", list)
    assert Scraper().ask() == []


def test_an_error_is_one_of_that_device_alone(place: Device, tmp_path: Path) -> None:
    gone = Device("swap1", str(tmp_path / "nowhere"))
    found = Scraper().ask([gone, place])
    assert found[0].error is not None
    assert "swap1" in found[0].error
    assert "\n" not in found[0].error
    assert found[1].text == ONE


def test_what_is_not_text_is_an_error(place: Device) -> None:
    Path(place.mount, "metrics").write_bytes(b"\xff\xfe")
    (found,) = Scraper().ask([place])
    assert found.error == "the daemon of swap0 answers, but not text"


def test_the_second_device_of_a_name_is_called_by_its_mount(place: Device, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics").write_text(ONE)
    found = Scraper().ask([place, Device("swap0", str(other))])
    assert [each.label for each in found] == ["swap0", str(other)]


def never(*_arguments: object) -> subprocess.Popen[bytes]:
    """A program that does not end."""
    pipe = subprocess.PIPE
    program = [sys.executable, "-c", "import signal; signal.pause()"]
    return subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe)


def test_who_hangs_is_given_up(place: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "start_program", never)
    (found,) = Scraper(0.05).ask([place])
    assert found.error == "the daemon of swap0 does not answer (waited 0.05 s)"


def test_who_cannot_be_killed_is_waited_for_by_one_child_alone(
    place: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And when it has ended the device is asked again."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*_arguments: object) -> subprocess.Popen[bytes]:
        started.append(never())
        return started[-1]

    scraper = Scraper(0.05)
    with monkeypatch.context() as patch:
        patch.setattr(module, "start_program", start)
        patch.setattr(module, "give_up", lambda process: None)
        assert [scraper.ask([place])[0].error for _ in range(3)] == [
            "the daemon of swap0 does not answer (waited 0.05 s)",
            "the daemon of swap0 does not answer, still",
            "the daemon of swap0 does not answer, still",
        ]
    (only,) = started
    only.kill()
    only.communicate(timeout=SECONDS)
    assert scraper.ask([place])[0].text == ONE


def test_a_program_that_is_missing_is_said(place: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_arguments: object) -> None:
        raise UserError("the program cat is not installed")

    monkeypatch.setattr(module, "start_program", missing)
    assert Scraper().ask([place])[0].error == "the program cat is not installed"


# --- What is short -------------------------------------------------------------------------


def test_no_thread_to_be_had_is_an_answer_that_failed(
    place: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    def short(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", short)
        (found,) = Scraper().ask([place])
    assert found.error == "the daemon of swap0 cannot be asked: can't start new thread"
    assert Scraper().ask([place])[0].error is None


def test_no_process_to_be_had_is_one_too(place: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    def short(*_arguments: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(module, "start_program", short)
    (found,) = Scraper().ask([place])
    assert found.error == "the daemon of swap0 cannot be asked: Resource temporarily unavailable"


# --- When it was known ---------------------------------------------------------------------


def test_an_answer_has_its_own_time_and_not_that_of_the_last(
    place: Device, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that hangs takes its whole time; what the others said is older than that."""
    seen = threading.Event()
    times = iter([10.0, 12.0])

    def clock() -> float:
        seen.set()
        return next(times)

    def waiting(argv: list[str]) -> subprocess.Popen[bytes]:
        if "hangs" in argv[-1]:
            assert seen.wait(SECONDS)  # until the other one has answered
            return never()
        return start_program(argv)

    monkeypatch.setattr(module, "start_program", waiting)
    hangs = Device("swap1", str(tmp_path / "hangs"))
    late, early = Scraper(0.05, clock=clock).ask([hangs, place])
    assert late.error is not None
    assert (early.text, early.time, late.time) == (ONE, 10.0, 12.0)
