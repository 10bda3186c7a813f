"""Put what a run of the comparison found into a document, between two marker comments.

    python -m bench.published bench/out/compare/compare.json [--readme README.md]

What stands between the markers is made anew; without a document it is printed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bench.record import RecordError, load
from bench.tables import summary

__all__ = ["BEGIN", "END", "MarkerError", "spliced"]

BEGIN = "<!-- bench: begin -->"
END = "<!-- bench: end -->"


class MarkerError(Exception):
    """A document does not have each marker once, the one before the other."""


def spliced(text: str, made: str) -> str:
    """A document with `made` between its markers. Raises `MarkerError`."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not (begin and end) or BEGIN in rest or END in head + tail:
        raise MarkerError(f"{BEGIN} and {END} must stand there once, in this order")
    return f"{head}{BEGIN}\n\n{made}\n\n{END}{tail}"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, metavar="JSON", help="what the comparison wrote")
    parser.add_argument("--readme", type=Path, metavar="FILE", help="the document")
    arguments = parser.parse_args()
    try:
        made = summary(load(arguments.run))
        if arguments.readme is None:
            print(made)
        else:
            arguments.readme.write_text(spliced(arguments.readme.read_text(), made))
    except (MarkerError, OSError, RecordError) as error:
        print(f"published: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
