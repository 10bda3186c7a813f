"""All devices' metrics in one exposition, whatever their daemons do."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from vswapd.exposition import merged
from vswapd.mounts import Device
from vswapd.scraper import Answer

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
