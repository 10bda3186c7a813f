"""The sign of life: as often as systemd wants it, and without ever waiting for it."""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from vswapd.heartbeat import Heartbeat
from vswapd.sdnotify import Keeper, keeps_device

if TYPE_CHECKING:
    from daemon.conftest import Systemd


def test_it_comes_twice_in_the_time_that_systemd_waits(systemd: Systemd, address: str) -> None:
    heartbeat = Heartbeat(Keeper(address), {"WATCHDOG_USEC": "20000000", "WATCHDOG_PID": "1"})
    seconds = [now for now in range(100, 141) if _beats(heartbeat, systemd, float(now))]
    assert seconds == [100, 110, 120, 130, 140]


def _beats(heartbeat: Heartbeat, systemd: Systemd, now: float) -> bool:
    heartbeat.look(now)
    told = systemd.hear()
    assert told in ([], [["WATCHDOG=1"]])
    return bool(told)


@pytest.mark.parametrize("environment", [{}, {"WATCHDOG_USEC": ""}, {"WATCHDOG_USEC": "soon"}])
def test_nobody_wants_one(environment: dict[str, str], systemd: Systemd, address: str) -> None:
    Heartbeat(Keeper(address), environment).look(1.0)
    assert systemd.hear() == []


def test_one_that_does_not_listen_is_not_waited_for(
    systemd: Systemd, address: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It could be swapped out, and be waiting for us."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as end, suppress(BlockingIOError):
        end.connect(address)
        end.setblocking(False)
        while True:
            end.send(b"X=1")
    Heartbeat(Keeper(address), {"WATCHDOG_USEC": "1"}).look(1.0)
    assert caplog.text == ""
    assert ["WATCHDOG=1"] not in systemd.hear()


def test_what_was_kept_is_seen_without_being_taken() -> None:
    names = "vswap-state0:vswap-record"
    mine = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "2", "LISTEN_FDNAMES": names}
    before = dict(mine)
    assert keeps_device(mine)
    assert mine == before
    assert not keeps_device({**mine, "LISTEN_PID": "1"})
    assert not keeps_device({**mine, "LISTEN_FDNAMES": "other"})
    assert not keeps_device({})
