"""All devices' metrics in one exposition, whatever their daemons do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vswap.errors import UserError
from vswapd import exposition
from vswapd.exposition import Answer, Scraper, merged
from vswapd.mounts import Device

SECONDS = 10
ONE = """\
# HELP vswap_size_bytes Size of the device
# TYPE vswap_size_bytes gauge
vswap_size_bytes{device="swap0"} 4096.0
# HELP vswap_reads_total Read requests
# TYPE vswap_reads_total counter
vswap_reads_total{device="swap0"} 7.0
"""


def answer(name: str, text: str = "", *, label: str = "", error: str | None = None) -> Answer:
    return Answer(Device(name, f"/mnt/{name}"), label or name, text, error)


def samples(text: str) -> dict[tuple[str, str], float]:
    """By name and device."""
    return {
        (one.name, one.labels["device"]): one.value
        for family in text_string_to_metric_families(text)
        for one in family.samples
    }


def test_one_device_s_are_as_they_were() -> None:
    assert merged([answer("swap0", ONE)]) == (
        "# HELP vswap_up Whether the device's daemon answered\n"
        "# TYPE vswap_up gauge\n"
        'vswap_up{device="swap0"} 1\n' + ONE
    )


def test_no_device_is_no_sample() -> None:
    assert samples(merged([])) == {}


def test_families_of_two_devices_are_one() -> None:
    other = ONE.replace("swap0", "swap1").replace("7.0", "8.0")
    text = merged([answer("swap0", ONE), answer("swap1", other)])
    assert text.count("# TYPE vswap_reads_total counter\n") == 1
    assert text.count("# HELP vswap_reads_total ") == 1
    assert 'device="swap0"} 7.0\nvswap_reads_total{device="swap1"} 8.0\n' in text
    assert samples(text) == {
        ("vswap_up", "swap0"): 1,
        ("vswap_up", "swap1"): 1,
        ("vswap_size_bytes", "swap0"): 4096,
        ("vswap_size_bytes", "swap1"): 4096,
        ("vswap_reads_total", "swap0"): 7,
        ("vswap_reads_total", "swap1"): 8,
    }


def test_who_does_not_answer_is_down() -> None:
    text = merged([answer("swap0", ONE), answer("swap1", error="it hangs")])
    up = {at: value for (name, at), value in samples(text).items() if name == "vswap_up"}
    assert up == {"swap0": 1, "swap1": 0}


def test_two_devices_of_one_name_are_told_apart() -> None:
    """Or Prometheus would refuse all of it."""
    text = merged([answer("swap0", ONE), answer("swap0", ONE, label="/home/x/swap0")])
    assert samples(text)["vswap_reads_total", "/home/x/swap0"] == 7
    assert samples(text)["vswap_reads_total", "swap0"] == 7


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", "\udcff", "\u00e4"])
def test_any_name_is_a_label(name: str) -> None:
    text = merged([answer(name, error="gone")])
    text.encode()
    ((found, value),) = samples(text).items()
    assert (found[0], value) == ("vswap_up", 0)
    assert found[1] == name.replace("\udcff", "\\udcff")


# --- Asking ----------------------------------------------------------------------------


@pytest.fixture
def place(tmp_path: Path) -> Device:
    """A directory in the place of a mount."""
    (tmp_path / "metrics").write_text(ONE)
    return Device("swap0", str(tmp_path))


def test_the_file_is_read(place: Device) -> None:
    assert Scraper().ask([place]) == [Answer(place, "swap0", ONE)]


def test_nobody_is_asked_if_nobody_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposition, "devices", list)
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
    monkeypatch.setattr(exposition, "start_program", never)
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
        patch.setattr(exposition, "start_program", start)
        patch.setattr(exposition, "give_up", lambda process: None)
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

    monkeypatch.setattr(exposition, "start_program", missing)
    assert Scraper().ask([place])[0].error == "the program cat is not installed"
