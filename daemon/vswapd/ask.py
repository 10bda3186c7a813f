"""Write a command to `ctl`, and print the result that the same descriptor then holds.

``python -I -S ask.py CTL`` with the command on its standard input. A program of its own: who
waits for a daemon cannot be killed (vswapd/tell.py). It imports nothing of ours, so that it
starts fast.
"""

from __future__ import annotations

import os
import sys

__all__ = ["REFUSED", "main"]

REFUSED = 3
"""The exit status if the daemon answered with an error: said on stderr, the reason on stdout."""

_AT_ONCE = 1 << 16


def main(path: str) -> int:
    """The exit status: 0, `REFUSED`, or 1 if the daemon cannot be asked."""
    command = sys.stdin.buffer.read()
    status = 0
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            os.write(fd, command)
        except OSError as error:
            status = REFUSED
            print(error.strerror, file=sys.stderr)
        os.lseek(fd, 0, os.SEEK_SET)
        while part := os.read(fd, _AT_ONCE):
            sys.stdout.buffer.write(part)
    except OSError as error:
        print(f"{path}: {error.strerror}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
