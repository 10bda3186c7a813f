"""The metrics of all devices as one exposition, in Prometheus' text format.

Each daemon writes its own into a file of its mount (`vswapd.scraper` reads them). They are put
together here: what several devices have in common is one family, with its HELP and TYPE said once,
as the format wants it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vswapd.scraper import Answer

__all__ = ["CONTENT_TYPE", "merged"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_UP = """\
# HELP vswap_up Whether the device's daemon answered
# TYPE vswap_up gauge
"""


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
