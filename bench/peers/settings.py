"""Settings of the kernel that are changed for a while: files of /proc/sys and /sys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from bench.peers.peer import PeerError

__all__ = ["changed"]


@contextmanager
def changed(values: Mapping[Path, str]) -> Iterator[None]:
    """Write these values in this order, and what was there before, backwards, in the end.

    Raises `PeerError` when the kernel refuses one; nothing is changed then.
    """
    with ExitStack() as stack:
        for file, value in values.items():
            before = _exchange(file, value)
            if before != value:
                stack.callback(file.write_text, before)
        yield


def _exchange(file: Path, value: str) -> str:
    """Write it unless it is there already; what was there."""
    try:
        before = file.read_text().strip()
        if before != value:
            file.write_text(value)
    except OSError as error:
        raise PeerError(f"{file} cannot be {value!r} here: {error.strerror}") from None
    return before
