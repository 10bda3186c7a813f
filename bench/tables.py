"""Markdown of a run of the comparison: the aims, the figures, and where and how they were taken.

Tables have a line for each peer. In the short one a peer's figure is followed by how many times
better vswap is, and that is bold where vswap is worse.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

from bench.aims import Judged, judge
from bench.record import Record
from bench.report import markdown, spread
from bench.shown import GROUPS, OURS, SHOWN, Group, Shown

__all__ = ["document", "summary"]

_Cell = Callable[[Record, str, Shown], str]

NOTES = """\
- All but the peers "not tuned" run in a kernel with guest_halt_poll_ns as `vswap up` sets it.
  While it swaps, vm.page-cluster is 5 for what is reached through FUSE (as `vswap up` sets it), the
  kernel's own 3 for a swap file and zram (which reads no page ahead), and 0 for zswap, where with
  3 the hog is often killed for want of memory.
- Sizes in bytes for a page are all that was taken for the pages (data, maps, buffers), by the
  pages that are stored; without zram's own table (16 bytes for each page of the device) and zswap's
  entries, which the kernel does not count. Beside the pages is what else the serving processes
  have (PSS).
- Pages are memory of real processes (bench/corpus.py). The hog counts pages visited in a second
  (filled, verified, a quarter rewritten, verified), without the time to read its source.
- CPU s/GiB is the time that all processors were busy, whoever had them, less the hog's own (its
  user time, and reading its source), for each GiB that was swapped out or in.
- 4K reads and their depths are fio's (io_uring); writes are real pages by as many threads as the
  depth says, each waiting for its own.
- swapoff on vswap is timed as `vswap down` does it, which has pages read ahead of swapoff, and the
  aim is judged by that. All others have swapoff alone, as vswap has in the column of that name;
  being helped the same way would make them faster too.
- Nobody may write to a swap file, zswap's or a plain one, but the kernel: requests to it are not
  measured. What keeps nothing cannot be swapped on."""


def summary(record: Record) -> str:
    """What a README has: the machine, the aims, the most important figures, what is missing."""
    brief = [shown for shown in SHOWN.values() if shown.brief]
    reading = (
        f"Medians. In brackets: how many times better {OURS} is than that peer; "
        f"below 1, in bold, {OURS} is worse."
    )
    parts = [
        _machine(record),
        aims_table(record),
        reading,
        _table(record, brief, _against_ours),
        f"{NOTES}\n{_extent(record)}",
        *_missing(record),
    ]
    return "\n\n".join(parts)


def document(record: Record, plots: Sequence[str]) -> str:
    """The whole run: the summary, then each sort of figure with its spread. `plots` are files."""
    facts = {**record.machine, **record.settings}
    about = markdown(["", ""], [[name, value] for name, value in facts.items()])
    sections = [f"# {OURS} beside its peers", summary(record), f"## This run\n\n{about}"]
    for group in GROUPS:
        images = [f"![{group.title}]({plot})" for plot in plots if plot == f"{group.name}.png"]
        table = _table(record, _with_parts(group), _spread)
        if table:
            sections.append("\n\n".join([f"## {group.title}", *images, table]))
    return "\n\n".join(sections) + "\n"


def aims_table(record: Record) -> str:
    """Every aim, what it is judged by, and whether it was met."""
    header = ["aim", OURS, "compared with", "ratio", "verdict"]
    return markdown(header, (_aim_row(judged) for judged in judge(record)))


def _aim_row(judged: Judged) -> list[str]:
    ratio = "" if judged.ratio is None else f"{judged.ratio:.3f}x"
    verdict = {True: "met", False: "**missed**", None: "not measured"}[judged.met]
    return [
        judged.claim.words(),
        *("" if value is None else spread([value]) for value in (judged.ours, judged.theirs)),
        ratio,
        verdict,
    ]


# ---- figures -------------------------------------------------------------------------------


def _table(record: Record, columns: Sequence[Shown], cell: _Cell) -> str:
    """A line for each peer and a column for each figure that anyone has; empty without any."""
    has = [s for s in columns if any(record.values(peer, s.figure) for peer in record.results)]
    rows = [
        [f"**{peer}**" if peer == OURS else peer, *(cell(record, peer, shown) for shown in has)]
        for peer in record.results
        if any(record.values(peer, shown.figure) for shown in has)
    ]
    if not rows:
        return ""
    return markdown(["", *(f"{shown.heading}, {shown.unit}" for shown in has)], rows)


def _against_ours(record: Record, peer: str, shown: Shown) -> str:
    theirs, ours = record.values(peer, shown.figure), record.values(OURS, shown.figure)
    if not theirs:
        return ""
    value = spread([statistics.median(theirs)])
    if peer == OURS or not ours:
        return value
    advantage = shown.advantage(statistics.median(ours), statistics.median(theirs))
    if advantage is None:
        return value
    return f"{value} ({advantage:.2f}x)" if advantage >= 1 else f"{value} (**{advantage:.2f}x**)"


def _spread(record: Record, peer: str, shown: Shown) -> str:
    return spread(record.values(peer, shown.figure))


def _with_parts(group: Group) -> list[Shown]:
    """Every figure, and after it what is shown as a part of it."""
    found = []
    for shown in group.shown:
        found.append(shown)
        if shown.part:
            heading = f"{shown.heading}, {shown.part_heading}"
            found.append(Shown(shown.part, heading, shown.unit))
    return found


# ---- the machine, and what is missing --------------------------------------------------------


def _machine(record: Record) -> str:
    machine, settings = record.machine, record.settings
    return (
        f"{record.date}: {machine['processor']}, {machine['processors']} processors, "
        f"{machine['memory']}, kernel {machine['kernel']}, Python {machine['Python']}; "
        f"rounds: {settings['rounds']}{_fewer(record)}, peers in turns."
    )


def _fewer(record: Record) -> str:
    """Of how many rounds the figures at least are, if that is less than was asked for."""
    brief = [shown.figure for shown in SHOWN.values() if shown.brief]
    counts = [len(record.values(peer, figure)) for peer in record.results for figure in brief]
    fewest = min(filter(None, counts), default=0)
    return f" (some figures: {fewest})" if fewest < int(record.settings["rounds"]) else ""


def _extent(record: Record) -> str:
    """How much was done: the one note that is not of every run."""
    mib = {name: f"{value} MiB" for name, value in record.settings.items() if "_mib" in name}
    return (
        f"- Requests: {mib['requests_mib']}, all written before anything is read. "
        f"Hog: {mib['hog_mib']} in a cgroup of {mib['hog_limit_mib']}. "
        f"swapoff: {mib['held_mib']}, {mib['held_limit_mib']} of them in memory before it."
    )


def _missing(record: Record) -> list[str]:
    """Sentences about peers that were left out, and what failed."""
    lines = [f"- {peer} is left out: {reason}" for peer, reason in record.left_out.items()]
    lines += [
        f"- {failure.work} on {failure.peer} failed in round {failure.round}: {failure.reason}"
        for failure in record.failures
    ]
    return ["\n".join(lines)] if lines else []
