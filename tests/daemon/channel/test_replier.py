"""Replying: each reply is one write, and what the kernel does not want is counted."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest

from vswapd.channel.replier import Replier

if TYPE_CHECKING:
    from daemon.channel.conftest import Kernel

LOG = "vswapd.channel.replier"


@pytest.fixture
def replier(kernel: Kernel) -> Replier:
    return Replier(kernel.fd)


def refuse(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    def writev(fd: int, buffers: Sequence[bytes]) -> int:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "writev", writev)


def test_a_header_alone_is_a_reply(replier: Replier, kernel: Kernel) -> None:
    replier.send(b"header")
    assert kernel.reply() == b"header"
    assert not kernel.has_reply()


def test_header_and_buffers_are_one_reply(replier: Replier, kernel: Kernel) -> None:
    """The socket keeps messages apart, as the device does."""
    replier.send(b"header", b"bytes", memoryview(b"-view-")[1:5], bytearray(b"array"))
    assert kernel.reply() == b"headerbytesviewarray"
    assert not kernel.has_reply()


def test_an_empty_buffer_is_no_end(replier: Replier, kernel: Kernel) -> None:
    replier.send(b"header", b"", b"bytes")
    assert kernel.reply() == b"headerbytes"


def test_a_reply_is_one_call(
    replier: Replier, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[int, list[bytes]]] = []
    monkeypatch.setattr(os, "writev", lambda fd, buffers: calls.append((fd, list(buffers))))
    replier.send(b"header", *[b"x" * 4096] * 256)
    assert calls == [(kernel.fd, [b"header", *[b"x" * 4096] * 256])]


def test_what_was_taken_is_not_counted(
    replier: Replier, kernel: Kernel, caplog: pytest.LogCaptureFixture
) -> None:
    replier.send(b"header")
    assert (replier.late, replier.failed) == (0, 0)
    assert not caplog.records


def test_a_reply_nobody_waits_for_is_late(
    replier: Replier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(monkeypatch, errno.ENOENT)
    replier.send(b"header")
    assert (replier.late, replier.failed) == (1, 0)
    assert not caplog.records


@pytest.mark.parametrize("code", [errno.ENODEV, errno.ECONNABORTED])
def test_a_reply_after_the_end_is_neither_late_nor_an_error(
    code: int,
    replier: Replier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuse(monkeypatch, code)
    replier.send(b"header")
    assert (replier.late, replier.failed) == (0, 0)
    assert not caplog.records


@pytest.mark.parametrize("code", [errno.EINVAL, errno.EAGAIN, errno.EPERM, errno.ENOMEM])
def test_a_reply_that_is_refused_is_an_error_that_is_told(
    code: int,
    replier: Replier,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refuse(monkeypatch, code)
    replier.send(b"header")
    assert (replier.late, replier.failed) == (0, 1)
    assert [(record.name, record.levelno) for record in caplog.records] == [(LOG, logging.ERROR)]
    assert os.strerror(code) in caplog.text


def test_contents_of_pages_do_not_get_into_the_log(
    replier: Replier, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refuse(monkeypatch, errno.EINVAL)
    replier.send(b"header", b"TOPSECRET" * 400)
    assert len(caplog.records) == 1
    assert "SECRET" not in caplog.text


def test_after_a_refusal_replies_are_sent(replier: Replier, kernel: Kernel) -> None:
    with pytest.MonkeyPatch.context() as patch:
        refuse(patch, errno.EINVAL)
        replier.send(b"lost")
    replier.send(b"header")
    assert kernel.reply() == b"header"
    assert (replier.late, replier.failed) == (0, 1)


def test_repliers_count_each_for_itself(
    replier: Replier, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Replier(kernel.fd)
    refuse(monkeypatch, errno.ENOENT)
    for _ in range(3):
        other.send(b"header")
    assert (replier.late, other.late) == (0, 3)
