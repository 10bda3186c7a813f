"""How long it takes to make a store of what a killed worker left.

    ./vswap.sh bench derive [--rounds N] [--mib N] [--overwrites N] [--json FILE]

A device is filled with process memory, and single pages of it are overwritten at random. Then a
process that has done nothing else maps the state and builds a store on it, again and again.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path

from bench.measure import MIB, source
from bench.options import common
from bench.report import Figures, save, show
from vswap.geometry import PAGE_SIZE, Geometry
from vswap.store import Lane, Policy, Shape, State, Store, segments_for

LANES = 2
REQUEST = 256 << 10
POLICY = Policy()


def shape_of(size: int) -> Shape:
    """A device of `size` bytes, as the daemon makes them."""
    geometry = Geometry(size)
    return Shape(geometry, segments_for(geometry, LANES), LANES, 257 * PAGE_SIZE)


def fill(lane: Lane, corpus: memoryview, overwrites: int) -> None:
    """Every slot, in order; then pages at random."""
    end = len(corpus) - REQUEST
    for number, offset in enumerate(range(0, lane.size, REQUEST)):
        at = number * REQUEST % end // PAGE_SIZE * PAGE_SIZE
        lane.write(offset, corpus[at : at + REQUEST])
    chosen = random.Random(1)
    for _ in range(overwrites):
        at = chosen.randrange(end // PAGE_SIZE) * PAGE_SIZE
        slot = chosen.randrange(lane.size // PAGE_SIZE)
        lane.write(slot * PAGE_SIZE, corpus[at : at + PAGE_SIZE])


def take_over(state: State) -> Figures:
    """Build a store and its lanes on a new mapping."""
    began = time.perf_counter()
    left = State.attach(state.shape, [os.dup(fd) for fd in state.fds()])
    attached = time.perf_counter()
    store = Store(left, POLICY)
    built = time.perf_counter()
    for _ in range(LANES):
        store.lane()
    ended = time.perf_counter()
    found = store.statistics()
    return {
        "mapping: ms": (attached - began) * 1e3,
        "store: ms": (built - attached) * 1e3,
        "lanes: ms": (ended - built) * 1e3,
        "pages": float(found.stored_pages),
        "segments": float(found.segments_sealed + found.segments_open),
    }


def in_a_process(state: State) -> Figures:
    """`take_over` where nothing is mapped yet, and the code has run once, as the daemon's has."""
    ours, theirs = os.pipe()
    child = os.fork()
    if not child:
        small = State.create(shape_of(8 * MIB))
        Store(small, POLICY).lane().write(0, memoryview(os.urandom(MIB)))
        Store(small, POLICY)
        with os.fdopen(theirs, "w") as out:
            json.dump(take_over(state), out)
        os._exit(0)
    os.close(theirs)
    with os.fdopen(ours) as found:
        figures: Figures = json.load(found)
    os.waitpid(child, 0)
    return figures


def main() -> int:
    parser = common(__doc__, rounds=10)
    parser.add_argument("--mib", type=int, default=4096, metavar="N", help="of the device (4096)")
    parser.add_argument("--overwrites", type=int, default=300_000, metavar="N", help="(300000)")
    arguments = parser.parse_args()
    corpus = memoryview(Path(source()).read_bytes())
    state = State.create(shape_of(arguments.mib * MIB))
    print("filling the device", file=sys.stderr)
    fill(Store(state, POLICY).lane(), corpus, arguments.overwrites)
    results = {"taken over": [in_a_process(state) for _ in range(arguments.rounds)]}
    show(f"a device of {arguments.mib} MiB", results, {}, base=None)
    save(arguments.json, results)
    return 0
