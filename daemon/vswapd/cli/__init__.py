"""The commands a person types. Nothing here imports trio or pyfuse3: a command starts fast."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from vswapd.cli.streams import open_closed_streams

__all__ = ["main"]


def main(args: Sequence[str] | None = None) -> int:
    """Run the command in `args` (None: the process's own) and return its exit code."""
    open_closed_streams()
    try:
        # Imported here, so that Ctrl-C during the imports is no traceback either.
        from vswapd.cli.group import main as run  # noqa: PLC0415

        return run(args)
    except KeyboardInterrupt:
        sys.stderr.write("vswap: interrupted\n")
        return 130
