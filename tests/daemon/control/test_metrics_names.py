"""Dashboard and rules ask for nothing that there is not."""

from __future__ import annotations

from prometheus_support import asked_for, exposed

from vswapd.control import Report
from vswapd.control.files import RENDERERS
from vswapd.exposition import merged
from vswapd.mounts import Device
from vswapd.scraper import Answer


def test_what_is_asked_for_is_there(report: Report) -> None:
    device = Device("swap0", "/run/vswap/swap0")
    text = merged([Answer(device, "swap0", RENDERERS["metrics"](report))])
    assert asked_for() - exposed(text) == set()
    assert len(asked_for()) > 30
