"""More time from systemd, for as long as something takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from vswapd.cli import grace
from vswapd.cli.grace import asking_for_time

if TYPE_CHECKING:
    from daemon.conftest import Systemd

LINE = ["EXTEND_TIMEOUT_USEC=30000000"]


def test_it_is_asked_at_once_and_again(
    systemd: Systemd, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    monkeypatch.setattr(grace, "_EVERY_SECONDS", 0.001)
    told: list[list[str]] = []
    with asking_for_time():
        while len(told) < 3:
            told += systemd.hear()
    systemd.hear()
    assert told[:3] == [LINE] * 3
    assert systemd.hear() == []  # and not when it is over


def test_nobody_is_asked_without_systemd(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    with asking_for_time():
        pass


def test_an_error_in_the_block_is_passed_on(
    systemd: Systemd, address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    with pytest.raises(KeyError), asking_for_time():
        raise KeyError
    assert systemd.hear() == [LINE]
