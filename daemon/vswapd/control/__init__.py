"""The control plane: the namespace on pyfuse3, statistics files, and ctl."""

from __future__ import annotations

from vswapd.control.bridge import Bridge
from vswapd.control.commands import commands_of
from vswapd.control.ctl import Control
from vswapd.control.history import History
from vswapd.control.namespace import Namespace
from vswapd.control.report import DeviceInfo, Report
from vswapd.control.rings import Rings

__all__ = [
    "Bridge",
    "Control",
    "DeviceInfo",
    "History",
    "Namespace",
    "Report",
    "Rings",
    "commands_of",
]
