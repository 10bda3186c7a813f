"""A store that is overwritten at random, ten times over, with hardly more memory than it needs.

    ./vswap.sh bench churn [--size SIZE] [--limit SIZE] [--times N] [--json FILE]

In process and without FUSE: two threads, each with a lane, overwrite, discard and read 1 to
32 pages at a time, while the background works as it does in the daemon. Memory is looked at
all the time. In the end every page is compared with what was written; a page that is wrong
makes the exit status 1.
"""

from __future__ import annotations

import faulthandler
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.churned import Churned, Outcome, Pages
from bench.measure import MIB, source
from bench.options import common, guarded, settings
from bench.report import Aim, Figures, save, show
from bench.sampler import sampling
from vswap.geometry import PAGE_SIZE, Geometry
from vswap.store import Policy, least_memory
from vswapd.config import parse_size

FILL = 0.7
TRIAL_SIZE = 64 * MIB
LOOK_SECONDS = 0.002
REST_TIMEOUT = 120.0

AIMS = {
    "peak mem_used_total / limit": Aim(1.0, at_most=True),
    "at rest: mem_used_total / compr_data_size": Aim(1.10, at_most=True),
    "failed writes": Aim(0, at_most=True),
    "check: problems": Aim(0, at_most=True),
    "pages that are wrong": Aim(0, at_most=True),
}


@dataclass(frozen=True)
class Plan:
    """A device, how it is used, and in how much memory. Sizes in bytes."""

    size: int
    limit: int | None
    times: float
    fill: float
    policy: Mapping[str, object]

    def with_policy(self, limit: int | None) -> Policy:
        """The store's policy with that limit."""
        return Policy(**{**self.policy, "memory_limit": limit})  # type: ignore[arg-type]


def expected_bytes(plan: Plan, pages: Pages) -> float:
    """What all the pages would take, compressed: by a small store that is filled alike."""
    trial = Churned(TRIAL_SIZE, FILL, plan.with_policy(None), pages, seed=0)
    try:
        trial.write_all(times=1.0)
        return trial.bytes_per_page() * (plan.size / PAGE_SIZE * plan.fill)
    finally:
        trial.close()


def churn(plan: Plan, limit: int, pages: Pages, seed: int) -> Figures:
    """One run, with all its figures."""
    churned = Churned(plan.size, plan.fill, plan.with_policy(limit), pages, seed)
    try:
        with sampling(churned.memory, LOOK_SECONDS) as samples:
            with churned.background():
                began = time.monotonic()
                done = churned.write_all(plan.times)
                seconds = time.monotonic() - began
            rested = churned.rest(REST_TIMEOUT)
        return {
            "MB/s written": done.pages_written * PAGE_SIZE / seconds / 1e6,
            "peak mem_used_total, MiB": samples.most("mem_used_total") / MIB,
            "peak mem_used_total / limit": samples.most("mem_used_total") / limit,
            "looks at the memory": len(samples.rows),
            **_outcome(churned, done),
            "at rest after: s": rested,
            **_state(churned),
        }
    finally:
        churned.close()


def _outcome(churned: Churned, done: Outcome) -> Figures:
    problems = churned.check()
    for problem in problems[:10]:
        print(f"check: {problem}", file=sys.stderr)
    return {
        "writes": done.writes,
        "failed writes": done.failed,
        "discards": done.discards,
        "reads, all compared": done.reads,
        "check: problems": len(problems),
        "pages that are wrong": done.wrong + churned.wrong_pages(),
    }


def _state(churned: Churned) -> Figures:
    stats = churned.statistics()
    return {
        "at rest: mem_used_total, MiB": stats.mem_used_total / MIB,
        "at rest: compr_data_size, MiB": stats.compr_data_size / MIB,
        "at rest: mem_used_total / compr_data_size": stats.mem_used_total / stats.compr_data_size,
        "at rest: segment_bytes / compr_data_size": stats.segment_bytes / stats.compr_data_size,
        "at rest: pages cold": stats.cold_pages / stats.stored_pages,
        "at rest: dead, MiB": stats.dead_bytes / MIB,
        "segments cleaned": stats.segments_cleaned,
        "pages recompressed": stats.pages_recompressed,
    }


def least(plan: Plan) -> int:
    """The least limit that such a device can have."""
    return least_memory(Churned.shape(Geometry(plan.size)))


def main() -> int:
    parser = common(__doc__, rounds=1)
    parser.add_argument("--size", type=parse_size, default=1 << 30, help="of the device (1G)")
    parser.add_argument("--limit", type=parse_size, help="of memory (instead of --factor)")
    parser.add_argument(
        "--factor", type=float, default=1.15, help="the limit, by the expected size (1.15)"
    )
    parser.add_argument("--times", type=float, default=10, help="the size is written so often (10)")
    parser.add_argument("--fill", type=float, default=FILL, help=f"share in use ({FILL})")
    parser.add_argument(
        "--timeout", type=float, default=3600, help="seconds after which it is ended (3600)"
    )
    parser.add_argument("--corpus", type=Path, help="a file of pages (default: made or found)")
    arguments = parser.parse_args()
    # A thread that hangs in the store is shown where it hangs.
    faulthandler.dump_traceback_later(arguments.timeout, exit=True)
    pages = Pages(arguments.corpus or source())
    plan = Plan(
        arguments.size, arguments.limit, arguments.times, arguments.fill, settings(arguments.set)
    )
    expected = expected_bytes(plan, pages)
    limit = plan.limit or max(int(expected * arguments.factor), least(plan))
    print(f"expected {expected / MIB:.1f} MiB compressed, limit {limit / MIB:.1f} MiB")
    rounds = []
    for number in range(arguments.rounds):
        print(f"round {number + 1} of {arguments.rounds}", file=sys.stderr)
        rounds.append(churn(plan, limit, pages, seed=number + 1))
    save(arguments.json, {"expected": expected, "limit": limit, "churn": rounds})
    show(f"{plan.times:g} times {plan.size / MIB:,.0f} MiB", {"churn": rounds}, {"churn": AIMS})
    return int(any(run["pages that are wrong"] or run["check: problems"] for run in rounds))


if __name__ == "__main__":
    sys.exit(guarded(main))
