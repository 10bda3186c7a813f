"""What daemons say in a file of their mounts, read by children with a time limit.

They are killed when their time is up (vswapd/mounts.py), and all devices are asked at once.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from vswap.errors import UserError
from vswapd.mounts import Device, devices, failure
from vswapd.swapdev import Ended, give_up, start_program

__all__ = ["Answer", "Scraper"]

_ANSWER_SECONDS = 3.0  # Prometheus waits 10 s for all of them
_AT_ONCE = 8


@dataclass(frozen=True)
class Answer:
    """What a device's daemon says of itself, or the `error` for which it does not.

    `label` is what the device is called here: its name, or, if another one has that, its mount.
    `time` is when that was known, in seconds by the monotonic clock; others may still be asked.
    """

    device: Device
    label: str
    text: str = ""
    error: str | None = None
    time: float = field(default=0.0, compare=False)


class Scraper:
    """Asks the devices that are there. One call at a time."""

    def __init__(
        self,
        timeout: float = _ANSWER_SECONDS,
        file: str = "metrics",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """What they say is in `file` of their mounts. One is given up after `timeout` seconds."""
        self._timeout = timeout
        self._file = file
        self._clock = clock
        self._stuck: dict[str, subprocess.Popen[bytes]] = {}

    def ask(self, chosen: Iterable[Device] | None = None) -> list[Answer]:
        """What these devices say, or all that are there now."""
        asked = list(devices() if chosen is None else chosen)
        if not asked:
            return []
        labels = _labels(asked)
        try:
            with ThreadPoolExecutor(min(len(asked), _AT_ONCE)) as pool:
                return list(pool.map(self._answer, asked, labels))
        except RuntimeError as error:  # there is no thread to be had, for now
            return list(map(self._failed, asked, labels, [str(error)] * len(asked)))

    def _failed(self, device: Device, label: str, why: str) -> Answer:
        why = f"the daemon of {device.name} cannot be asked: {why}"
        return Answer(device, label, error=why, time=self._clock())

    def _answer(self, device: Device, label: str) -> Answer:
        text, error = "", None
        try:
            text = self._read(device).decode()
        except UserError as problem:
            error = str(problem)
        except UnicodeDecodeError:
            error = f"the daemon of {device.name} answers, but not text"
        except OSError as problem:  # no process or memory
            return self._failed(device, label, problem.strerror or str(problem))
        return Answer(device, label, text, error, self._clock())

    def _read(self, device: Device) -> bytes:
        """The device's file. Raises `UserError`, `OSError`.

        A child that could not even be killed waits for a daemon that hangs. No second one is sent
        after it: who is asked every few seconds would have thousands of them within a day.
        """
        before = self._stuck.get(device.mount)
        if before is not None and before.poll() is None:
            raise UserError(f"the daemon of {device.name} does not answer, still")
        process = start_program(["cat", "--", f"{device.mount}/{self._file}"])
        try:
            stdout, stderr = process.communicate(timeout=self._timeout)
        except subprocess.TimeoutExpired:
            raise UserError(
                f"the daemon of {device.name} does not answer (waited {self._timeout:g} s)"
            ) from None
        finally:
            if process.returncode is None:
                give_up(process)
                self._stuck[device.mount] = process
        if process.returncode:
            raise UserError(failure(device, Ended(process.returncode, stdout, stderr)))
        return stdout


def _labels(asked: list[Device]) -> list[str]:
    """A name of its own for each: a series that is there twice fails the whole scrape."""
    seen: set[str] = set()
    labels = []
    for device in asked:
        labels.append(device.mount if device.name in seen else device.name)
        seen.add(device.name)
    return labels
