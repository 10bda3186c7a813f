"""What can be written to `ctl`, for its `help` and for `vswap ctl --help`.

Apart from the commands themselves, which the command line need not import.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

__all__ = ["COMMANDS", "choices", "usage"]

COMMANDS = {
    "memory_limit": ("SIZE|none", "most memory that the device may take (0 is none)"),
    "compact": ("", "win back the space of dead pages"),
    "recompress": (
        "[type=idle|huge|huge_idle] [threshold=BYTES] [max_pages=N]",
        "compress pages again, harder",
    ),
    "idle": ("all|SECONDS", "mark as idle what was written so long ago"),
    "presence": ("START N", "whether N slots from START on are in memory"),
    "writeback": (
        "idle|huge|huge_idle|incompressible|page_index=N|page_indexes=A-B",
        "write pages to the backing now",
    ),
    "writeback_limit": ("N", "most that is written back in a day, in units of 4 KiB"),
    "writeback_limit_enable": ("0|1", "whether that limit counts"),
    "backing": (
        "[attach PATH|grow SIZE|detach|stop|status]",
        "the file that cold pages are written to; stop ends a detaching, status is the default",
    ),
    "check": ("", "compare all that is counted and stored with what is there"),
    "help": ("", "list the commands"),
}
"""By name: the arguments and what it does. The words are zram's where it has the same."""


def usage() -> Iterator[tuple[str, str]]:
    """Each command with its arguments, and what it does."""
    for name, (arguments, about) in COMMANDS.items():
        yield f"{name} {arguments}".strip(), about


def choices(command: str) -> list[str]:
    """The words that can stand first behind a command, as they are.

    None for one that takes NAME=VALUE there: a shell divides such a word, each in its own way.
    """
    arguments, _ = COMMANDS.get(command, ("", ""))
    words = [each.partition(" ")[0] for each in arguments.strip("[]").split("|")]
    return [] if "=" in words[0] else [word for word in words if _WORD.fullmatch(word)]


_WORD = re.compile("[a-z0-9_]+")
