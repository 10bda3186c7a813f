"""Run a benchmark by its name.

    sudo ./vswap.sh bench [NAME] [options]

Without a name it is `compare`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from bench import (
    churn,
    cleaner,
    codecs,
    compare,
    density,
    derive,
    latency,
    limit,
    takeover,
    writeback,
)
from bench.options import guarded

BENCHMARKS: dict[str, Callable[[], int]] = {
    "compare": compare.main,
    "limit": limit.main,
    "latency": latency.main,
    "density": density.main,
    "cleaner": cleaner.main,
    "codecs": codecs.main,
    "churn": churn.main,
    "writeback": writeback.main,
    "derive": derive.main,
    "takeover": takeover.main,
}


def main() -> int:
    words = sys.argv[1:]
    name = words.pop(0) if words and not words[0].startswith("-") else "compare"
    if name not in BENCHMARKS:
        print(f"bench: no benchmark {name!r}; there are {', '.join(BENCHMARKS)}", file=sys.stderr)
        return 2
    sys.argv = [f"bench {name}", *words]
    return guarded(BENCHMARKS[name])


if __name__ == "__main__":
    sys.exit(main())
