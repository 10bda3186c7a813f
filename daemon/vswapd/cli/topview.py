"""What `vswap top` shows: lines of text, for a terminal of any width from 60 columns on.

A device is a block of lines. If not all blocks fit in the height each device is one line of a
table instead, and of what still does not fit the number is said.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from rich.text import Text

from vswap.geometry import PAGE_SIZE
from vswapd.cli.text import table
from vswapd.figures import duration, human, ratio
from vswapd.said import moment, printable
from vswapd.samples import Look, Sample

__all__ = ["LEAST_WIDTH", "Frame", "lines"]

LEAST_WIDTH = 60
_LABEL = 13
_NOTE = 26
_FIGURES = 14  # "  1023M  100 % "
_HALVES = 2
_PERCENTS = (50, 99)


@dataclass(frozen=True)
class Frame:
    """What there is room for, in columns and lines (None: as many as it takes).

    `plain` is for terminals that have nothing but ASCII. `overall` has percentiles of all requests
    since the worker's start, not of those since the look before.
    """

    width: int = 80
    height: int | None = None
    plain: bool = False
    overall: bool = False


def lines(look: Look, frame: Frame, title: str) -> list[Text]:
    """The whole picture."""
    frame = replace(frame, width=max(frame.width, LEAST_WIDTH))
    shown = [_sides(frame, Text("vswap top", "bold"), Text(title, "dim"))]
    if look.problem is not None:
        shown += [Text(), Text(look.problem, "yellow")]
    blocks = [line for each in look.samples for line in (Text(), *_block(each, frame))]
    room = None if frame.height is None else frame.height - len(shown)
    if room is not None and len(blocks) > room:
        blocks = _table(look.samples, frame, room)
    shown += blocks
    return [_cut(line, frame) for line in shown[: frame.height]]


def _cut(line: Text, frame: Frame) -> Text:
    if frame.plain:
        line.plain = line.plain.encode("ascii", "replace").decode()
    line.truncate(frame.width, overflow="crop" if frame.plain else "ellipsis")
    line.no_wrap = True
    return line


# --- One device as a block --------------------------------------------------------------


def _block(sample: Sample, frame: Frame) -> list[Text]:
    if sample.error is not None:
        head = _sides(frame, _name(sample), Text("does not answer", "bold red"))
        return [head, Text(f" {sample.error}", "red")]
    return [_head(sample, frame), *_bars(sample, frame), *_activity(sample, frame)]


def _name(sample: Sample) -> Text:
    return Text(sample.label, "bold cyan")


def _head(sample: Sample, frame: Frame) -> Text:
    restarts = int(sample.number("worker_restarts"))
    left = _name(sample)
    about = [human(int(sample.number("size"))), sample.word("codec"), printable(sample.mount)]
    left.append("  " + "  ".join(filter(None, about)))
    right = Text(f"worker {int(sample.number('worker_pid'))}, ", "dim")
    said = "1 restart" if restarts == 1 else f"{restarts} restarts"
    right.append(said + _last(sample) * bool(restarts), "yellow" if restarts else "")
    return _sides(frame, left, right)


def _last(sample: Sample) -> str:
    """When the worker took over."""
    began = moment(sample.stats.get("worker_began"))
    return time.strftime(", last %d %b %H:%M", time.localtime(began)) if began else ""


def _bars(sample: Sample, frame: Frame) -> list[Text]:
    """What the device's pages are, as shares of it, and what it takes of what it may."""
    size, get = sample.number("size"), sample.number
    stored, on_disk = get("stored_pages") * PAGE_SIZE, get("backing_pages") * PAGE_SIZE
    same = get("same_pages") * PAGE_SIZE
    limit = get("mem_limit")
    kept = human(int(get("compr_data_size")))
    backing = f"in {human(int(get('backing_data_size')))} of {human(int(get('backing_size')))}"
    filled = human(int(same - get("zero_pages") * PAGE_SIZE))
    parts = (
        ("in memory", "green", stored, size, f"in {kept}, ratio {_ratio(sample)}"),
        ("same pages", "blue", same, size, f"{filled} of them fill pages"),
        ("on disk", "magenta", on_disk, size, backing if get("backing_size") else "no backing"),
        ("total", "yellow", get("mem_used_total"), limit or size, _limit(int(limit))),
    )
    return [_bar(frame, *part) for part in parts]


def _limit(limit: int) -> str:
    return f"of the limit, {human(limit)}" if limit else "no limit but the size"


def _ratio(sample: Sample) -> str:
    """Of what is in memory and on disk to what that is kept in."""
    kept = sample.number("compr_data_size") + sample.number("backing_data_size")
    found = ratio(sample.number("orig_data_size"), kept)
    return "-" if found is None else f"{found:.2f}"


def _bar(frame: Frame, label: str, style: str, part: float, whole: float, note: str) -> Text:
    share = min(1.0, max(0.0, part / whole)) if whole else 0.0
    width = frame.width - _LABEL - _FIGURES - _NOTE - 2
    done = round(share * width)
    if part and not done:
        done = 1  # little is not nothing
    full, empty = ("#", ".") if frame.plain else ("\u2588", "\u2591")
    line = Text(f" {label:<{_LABEL}}")
    line.append(full * done, style)
    line.append(empty * (width - done), "dim")
    line.append(f" {human(int(part)):>6}{100 * share:>5.0f} % ")
    return line.append(note[:_NOTE], "dim")


def _activity(sample: Sample, frame: Frame) -> list[Text]:
    def pages(name: str) -> str:
        return _per_second(sample.rate(name), lambda rate: f"{_count(rate)} pages/s")

    def flow(name: str) -> str:
        rate = sample.rate(name)
        volume = "" if rate is None else f"{human(int(rate * PAGE_SIZE))}/s"
        return f"{pages(name):>15}{volume:>9}"

    column = (frame.width - 1) // _HALVES
    halves = (
        (("swap-in", flow("pages_read")), ("swap-out", flow("pages_written"))),
        (_latency(sample, "read", frame, column), _latency(sample, "write", frame, column)),
        (("cleaner", f"{pages('pages_compacted'):>15} moved"), ("to disk", flow("bd_writes"))),
        (("recompressed", f"{pages('pages_recompressed'):>15}"), ("from disk", flow("bd_reads"))),
        (("freed", f"{pages('notify_free'):>15}"), ("failed", _failures(sample))),
    )
    return [_half(*left, column).append(_half(*right, column)) for left, right in halves]


def _half(label: str, text: str, width: int) -> Text:
    return (
        Text(" ")
        .append(f"{label:<{_LABEL}}", "dim")
        .append(text[: width - _LABEL - 1].ljust(width - _LABEL - 1))
    )


def _latency(sample: Sample, kind: str, frame: Frame, column: int) -> tuple[str, str]:
    """What the half line is called, and the percentiles, short where there is little room."""
    found, is_overall = _percentiles(sample, kind, frame)
    times = [duration(each) for each in found]
    named = " ".join(f"{f'p{p} {each}':>10}" for p, each in zip(_PERCENTS, times, strict=False))
    text = named if len(named) < column - _LABEL else " ".join(times)
    return f"{kind}s, all" if is_overall else f"{kind}s", text or "-".rjust(15)


def _percentiles(sample: Sample, kind: str, frame: Frame) -> tuple[Sequence[float], bool]:
    """In microseconds, none without requests; and whether they are of all since the worker's start.

    That is where it is asked for, or nothing is known that they could be compared with.
    """
    between = None if frame.overall else sample.latency(kind)
    if between is not None:
        return [between.quantile_us(p / 100) for p in _PERCENTS if between.count], False
    return [
        sample.number(f"{kind}_p{p}_us") for p in _PERCENTS if sample.number(f"{kind}_count")
    ], True


def _failures(sample: Sample) -> str:
    reads, writes = (int(sample.number(f"failed_{kind}")) for kind in ("reads", "writes"))
    return f"{_count(reads)} reads, {_count(writes)} writes"


# --- Many devices as a table ------------------------------------------------------------

_NUMBERS = ("DATA", "TOTAL", "RATIO", "IN/S", "OUT/S", "RD P99", "WR P99", "DISK", "RST")


def _table(samples: Sequence[Sample], frame: Frame, room: int) -> list[Text]:
    rows = [_row(each, frame) for each in samples]
    text = list(table(("NAME", *_NUMBERS), rows, right=_NUMBERS))
    shown = [Text(), Text(text[0], "bold"), *map(_colored, text[1:], samples)]
    if len(shown) > room:
        more = len(shown) - room + 1
        shown = [*shown[: room - 1], Text(f"and {more} more", "yellow")]
    return shown


def _row(sample: Sample, frame: Frame) -> list[str]:
    name = sample.label if len(sample.label) <= 14 else sample.label[:13] + "~"
    if sample.error is not None:
        return [name, "does", "not", "answer", *[""] * (len(_NUMBERS) - 3)]
    get = sample.number
    return [
        name,
        human(int(get("orig_data_size"))),
        human(int(get("mem_used_total"))),
        _ratio(sample),
        *(_per_second(sample.rate(each), _count) for each in ("pages_read", "pages_written")),
        *(_highest(sample, kind, frame) for kind in ("read", "write")),
        human(int(get("backing_data_size"))),
        _count(get("worker_restarts")),
    ]


def _highest(sample: Sample, kind: str, frame: Frame) -> str:
    found, _ = _percentiles(sample, kind, frame)
    return duration(found[-1]) if found else "-"


def _colored(text: str, sample: Sample) -> Text:
    return Text(text, "red" if sample.error is not None else "")


# --- Figures ----------------------------------------------------------------------------


def _sides(frame: Frame, left: Text, right: Text) -> Text:
    """One at each side, the left one cut if it must be."""
    room = max(0, frame.width - right.cell_len - 2)
    left.truncate(room, overflow="crop" if frame.plain else "ellipsis")
    left.append(" " * (frame.width - right.cell_len - left.cell_len))
    return left.append(right)


def _per_second(rate: float | None, shown: Callable[[float], str]) -> str:
    return "-" if rate is None else shown(rate)


def _count(value: float) -> str:
    """Up to seven characters."""
    for unit in ("", "k", "M", "G"):
        if value < 100_000:
            return f"{value:,.0f}{unit}"
        value /= 1000
    return f"{value:,.0f}T"
