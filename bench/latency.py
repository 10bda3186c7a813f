"""What it costs to note how long each request takes: a router with and without, in turns.

    ./vswap.sh bench latency [--rounds N] [--requests N] [--json FILE]

No kernel is asked: requests lie in the receive buffer, and replies go to /dev/null. So what a
request takes here is the daemon's own part, and the ratio is the largest that there can be. Reads
are of zero pages, the shortest requests that there are, and of pages of real memory.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable
from time import perf_counter_ns

from bench.derive import REQUEST, shape_of
from bench.measure import MIB, source
from bench.options import common
from bench.report import Figures, save, show
from vswap.geometry import PAGE_SIZE
from vswap.proto import Request, abi, decode
from vswap.store import Policy, State, Store
from vswapd.channel import Outstanding, receive_buffer
from vswapd.channel.done import Done
from vswapd.channel.router import SWAP_INODE, Router

SIZE = 16 * MIB
FILLED = SIZE // 2
TURN = 2000


class Untimed(Router):
    """A router that neither looks at the clock nor notes anything.

    It calls a function that does nothing instead: some 0.04 us that are not seen.
    """

    def __init__(self, *parts: object) -> None:
        """As the other one."""
        super().__init__(*parts)  # type: ignore[arg-type]
        self._note_read = self._note_write = self._note_discard = _nothing

    def decode(self, length: int) -> Request | None:
        """As the other one does it, for what is a request."""
        return decode(self._buffer, length)


def _nothing(received_ns: int) -> None:
    pass


def read_of(offset: int) -> bytes:
    """A READ of a page."""
    body = struct.pack("<QQIIQII", 0, offset, PAGE_SIZE, 0, 0, 0, 0)
    length = abi.IN_HEADER.size + len(body)
    return struct.pack("<IIQQIIIHH", length, abi.Opcode.READ, 2, SWAP_INODE, 0, 0, 0, 0, 0) + body


def round_of(
    routers: dict[str, Router], buffer: memoryview, offsets: range, requests: int
) -> dict[str, float]:
    """Nanoseconds for a request, by router; each has its turn again and again."""
    took = dict.fromkeys(routers, 0)
    for _ in range(requests // TURN):
        for name, router in routers.items():
            took[name] += _turn(router, buffer, offsets)
    return {name: ns / (requests // TURN * TURN) for name, ns in took.items()}


def _turn(router: Router, buffer: memoryview, offsets: range) -> int:
    messages = [read_of(offsets[at % len(offsets)]) for at in range(TURN)]
    length = len(messages[0])
    began = perf_counter_ns()
    for message in messages:
        buffer[:length] = message
        request = router.decode(length)
        assert request is not None
        router.serve(request, length)
    return perf_counter_ns() - began


def figures(about: str, took: dict[str, float]) -> Figures:
    """Of one round."""
    noted, unnoted = took["noted"], took["not noted"]
    return {
        f"{about}, noted: ns": noted,
        f"{about}, not noted: ns": unnoted,
        f"{about}: ns more": noted - unnoted,
        f"{about}: ratio": noted / unnoted,
    }


def main() -> int:
    parser = common(__doc__, rounds=7)
    parser.add_argument("--requests", type=int, default=40_000, metavar="N", help="(40000)")
    arguments = parser.parse_args()
    state = State.create(shape_of(SIZE))
    store = Store(state, Policy())
    lane = store.lane()
    corpus = memoryview(source(SIZE // MIB).read_bytes())
    for at in range(0, FILLED, REQUEST):
        lane.write(at, corpus[at : at + REQUEST])
    whole = state.buffer(0)
    null = os.open(os.devnull, os.O_WRONLY)
    parts = (
        *(null, receive_buffer(whole), lane, Done(whole), Outstanding(state.outstanding.view)),
        *(_refuse, _refuse),
    )
    make: dict[str, Callable[..., Router]] = {"noted": Router, "not noted": Untimed}
    routers = {name: kind(*parts) for name, kind in make.items()}
    ranges = {
        "4K read, zero": range(FILLED, SIZE, PAGE_SIZE),
        "4K read, stored": range(0, FILLED, PAGE_SIZE),
    }
    results: list[Figures] = []
    for _ in range(arguments.rounds):
        found: Figures = {}
        for about, offsets in ranges.items():
            took = round_of(routers, receive_buffer(whole), offsets, arguments.requests)
            found.update(figures(about, took))
        results.append(found)
    show("noting how long requests take", {"a data thread": results}, {}, base=None)
    save(arguments.json, {"a data thread": results})
    return 0


def _refuse(*_arguments: object) -> bool:
    return False
