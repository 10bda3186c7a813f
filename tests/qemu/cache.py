"""Things that take long to make, kept by the content of what they are made of.

They lie in $XDG_CACHE_HOME/vswap-qemu (~/.cache by default), one folder each: KIND-KEY. A folder is
complete or not there. Of each kind only the newest few are kept.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["cached", "key_of", "locked"]

KEPT = 3


def _home() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()
    home = Path(base) / "vswap-qemu"
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    return home


def key_of(*parts: str | bytes) -> str:
    """A name for what is made of these parts."""
    digest = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()[:16]


@contextmanager
def locked() -> Iterator[None]:
    """Alone at making things: two test runs may want the same one."""
    with (_home() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def cached(kind: str, key: str, make: Callable[[Path], None]) -> Path:
    """The folder `KIND-KEY`, filled by `make` if it is not there. To be called `locked`."""
    folder = _home() / f"{kind}-{key}"
    if not folder.exists():
        fresh = _home() / f".{kind}-{key}"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir()
        try:
            make(fresh)
            fresh.rename(folder)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    os.utime(folder, (time.time(), time.time()))
    for old in sorted(_home().glob(f"{kind}-*"), key=lambda one: -one.stat().st_mtime)[KEPT:]:
        shutil.rmtree(old)
    return folder
