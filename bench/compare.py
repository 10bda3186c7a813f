"""vswap and its peers, side by side: requests, memory pressure, the end of swap, memory.

    sudo ./vswap.sh bench [compare] [--rounds N] [--seconds S] [--only PEER ...]
        [--work SORT ...] [--set NAME=VALUE] [--out DIR] [--quick]

Peers take turns: in every round, each is started anew for each sort of work, measured and
stopped. What counts are medians, and ratios of medians of one run. The run is written to DIR:
compare.json with every figure of every round, compare.md, and a plot for each sort of figure.
Ctrl-C ends it early; what there is then is written.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from bench.build import OUT
from bench.machine import describe, other_swaps
from bench.measure import source
from bench.options import guarded, need_root, parser_for, settings
from bench.peers import Peer, vswap
from bench.peers.catalogue import FUSE_PAGE_CLUSTER, PEERS, Start, tuned
from bench.plots import plot_all
from bench.record import Record
from bench.shown import OURS
from bench.tables import document
from bench.turns import carry_out, look, say, turns
from bench.work import PLAN, QUICK, SORTS, Plan, in_memory, works

__all__ = ["chosen", "starts"]

ROUNDS = 3
INTERRUPTED = 130  # the exit status: 128 and SIGINT


def starts(own: Mapping[str, object]) -> dict[str, Start]:
    """Every peer; ours with these settings, if there are any."""
    if not own:
        return dict(PEERS)
    return {
        **PEERS,
        OURS: partial(tuned, partial(_ours, own)),
        f"{OURS}, lz4": partial(tuned, partial(_ours, {**own, "codec": "lz4"})),
    }


@contextmanager
def _ours(own: Mapping[str, object], size: int) -> Iterator[Peer]:
    """Otherwise as the catalogue starts it."""
    with vswap(size, **own) as peer:
        yield replace(peer, page_cluster=FUSE_PAGE_CLUSTER)


def chosen(words: Sequence[str], names: Sequence[str]) -> list[str]:
    """The names among `words`, which may also be several with commas between them, in their order.

    Raises `ValueError` for another. Without any word it is all of them.
    """
    wanted = [
        name
        for word in words
        for name in ([word] if word in names else map(str.strip, word.split(",")))
    ]
    for name in wanted:
        if name not in names:
            raise ValueError(f"there is no {name!r}, only: {'; '.join(names)}")
    return [name for name in names if name in wanted or not words]


def write(record: Record, out: Path) -> None:
    """The JSON first: it is what all else is made from."""
    out.mkdir(parents=True, exist_ok=True)
    record.save(out / "compare.json")
    text = document(record, plot_all(record, out))
    (out / "compare.md").write_text(text)
    say(f"written: {out}/compare.json, compare.md and plots\n")


def _new_record(plan: Plan, rounds: int, own: Mapping[str, object]) -> Record:
    facts = {"rounds": rounds, **asdict(plan), **{f"--set {name}": v for name, v in own.items()}}
    date = datetime.now(UTC).date().isoformat()
    return Record(date, describe(), {name: str(value) for name, value in facts.items()})


def run(
    record: Record, plan: Plan, rounds: int, peers: Mapping[str, Start], sorts: Sequence[str]
) -> bool:
    """The whole run; whether it came to its end."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # cleans up as for Ctrl-C
    try:
        with in_memory(source()) as corpus:
            found = look(peers, record)
            all_work = [work for work in works(plan) if work.sort in sorts]
            carry_out(turns(found, all_work, rounds), peers, corpus, record)
    except KeyboardInterrupt:
        say("interrupted\n")
        return False
    return True


def main() -> int:
    parser = parser_for(__doc__)
    parser.add_argument("--rounds", type=int, metavar="N", help=f"({ROUNDS}; 1 if quick)")
    parser.add_argument(
        "--seconds", type=float, metavar="S", help=f"of each sort of request ({PLAN.seconds})"
    )
    parser.add_argument("--only", nargs="+", default=[], metavar="PEER", help="(all)")
    parser.add_argument("--work", nargs="+", default=[], metavar="SORT", help="fio, hog, swapoff")
    parser.add_argument("--out", type=Path, default=OUT / "compare", metavar="DIR")
    parser.add_argument("--quick", action="store_true", help="a look: one round, small sizes")
    arguments = parser.parse_args()
    if not need_root():
        return 2
    own = settings(arguments.set)
    plan = QUICK if arguments.quick else PLAN
    if arguments.seconds:
        plan = replace(plan, seconds=arguments.seconds)
    rounds = arguments.rounds or (1 if arguments.quick else ROUNDS)
    all_peers = starts(own)
    try:
        peers = {name: all_peers[name] for name in chosen(arguments.only, list(all_peers))}
        sorts = chosen(arguments.work, SORTS)
    except ValueError as error:
        parser.error(str(error))
    if others := other_swaps():
        say(f"there is other swap, which may disturb this: {', '.join(others)}\n")
    record = _new_record(plan, rounds, own)
    ended = run(record, plan, rounds, peers, sorts)
    write(record, arguments.out)
    return 0 if ended else INTERRUPTED


if __name__ == "__main__":
    sys.exit(guarded(main))
