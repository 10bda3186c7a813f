"""The metrics of all devices as one exposition, in Prometheus' text format.

Each daemon writes its own into a file of its mount. They are read by children that are killed
when their time is up (vswapd/mounts.py), all at once, and put together here: what several devices
have in common is one family, with its HELP and TYPE said once, as the format wants it.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from vswap.errors import UserError
from vswapd.mounts import Device, devices, failure
from vswapd.swapdev import Ended, give_up, start_program

__all__ = ["CONTENT_TYPE", "Answer", "Scraper", "merged"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_ANSWER_SECONDS = 3.0  # Prometheus waits 10 s for all of them
_AT_ONCE = 8

_UP = """\
# HELP vswap_up Whether the device's daemon answered
# TYPE vswap_up gauge
"""


@dataclass(frozen=True)
class Answer:
    """What a device's daemon says of itself, or the `error` for which it does not.

    `label` is what the device is called here: its name, or, if another one has that, its mount.
    """

    device: Device
    label: str
    text: str = ""
    error: str | None = None


class Scraper:
    """Asks the devices that are there. One call at a time."""

    def __init__(self, timeout: float = _ANSWER_SECONDS, file: str = "metrics") -> None:
        """What they say is in `file` of their mounts. One is given up after `timeout` seconds."""
        self._timeout = timeout
        self._file = file
        self._stuck: dict[str, subprocess.Popen[bytes]] = {}

    def ask(self, chosen: Iterable[Device] | None = None) -> list[Answer]:
        """What these devices say, or all that are there now."""
        asked = list(devices() if chosen is None else chosen)
        if not asked:
            return []
        with ThreadPoolExecutor(min(len(asked), _AT_ONCE)) as pool:
            return list(pool.map(self._answer, asked, _labels(asked)))

    def _answer(self, device: Device, label: str) -> Answer:
        try:
            return Answer(device, label, self._read(device).decode())
        except UserError as error:
            return Answer(device, label, error=str(error))
        except UnicodeDecodeError:
            return Answer(device, label, error=f"the daemon of {device.name} answers, but not text")

    def _read(self, device: Device) -> bytes:
        """The device's file. Raises `UserError`.

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


def merged(answers: Iterable[Answer]) -> str:
    """One exposition: `vswap_up` for each device, then what those say that have answered."""
    answers = list(answers)
    ups = (f'vswap_up{{device="{_escaped(each.label)}"}} {_up(each)}\n' for each in answers)
    families: dict[str, list[str]] = {}
    for each in answers:
        for name, head, samples in _families(each.text, _relabelling(each)):
            families.setdefault(name, head).extend(samples)
    return _UP + "".join(ups) + "".join(map("".join, families.values()))


def _up(answer: Answer) -> int:
    return int(answer.error is None)


def _families(
    text: str, relabel: Callable[[str], str]
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Each family's name, its HELP and TYPE, and its samples, all as lines."""
    for block in ("\n" + text).split("\n# HELP ")[1:]:
        lines = ("# HELP " + block).rstrip("\n").splitlines(keepends=True)
        lines[-1] = lines[-1].rstrip("\n") + "\n"
        head = [line for line in lines if line.startswith("#")]
        samples = [relabel(line) for line in lines if not line.startswith("#")]
        yield block.split(None, 1)[0], head, samples


def _relabelling(answer: Answer) -> Callable[[str], str]:
    said = f'device="{_escaped(answer.device.name)}"'
    wanted = f'device="{_escaped(answer.label)}"'
    return lambda line: line.replace(said, wanted, 1)


def _escaped(value: str) -> str:
    """As a label's value; what is not UTF-8 in a name is spelt out."""
    value = value.encode("utf-8", "backslashreplace").decode()
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
