"""vswap itself, as a peer."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.peers import processes
from bench.peers.peer import CommandError, Peer, PeerError, Stored
from bench.peers.served import loop, mount_point, served
from vswap.errors import UserError
from vswapd.cli.daemon import daemon_command
from vswapd.config import Settings

__all__ = ["Vswap", "vswap"]

_COMMAND_SECONDS = 600.0
_START_SECONDS = 20.0
_LOOK_SECONDS = 0.02
_NAMES = ["vswap-forks", "vswap-keeper", "vswap-standby", "vswap-worker"]


@dataclass(frozen=True)
class Vswap(Peer):
    """A device of ours. `mount` is where its files are."""

    mount: Path = field(kw_only=True)

    def stats(self) -> dict[str, Any]:
        """What it says about itself."""
        found: dict[str, Any] = json.loads((self.mount / "stats.json").read_text())
        return found

    def stored(self) -> Stored:
        """Zero pages and pages of one word are not stored, and so not counted."""
        stats, memory = self.stats(), self.pss()
        beside = memory["Pss"] - memory["Pss_Shmem"]  # the state is shared memory
        return Stored(stats["stored_pages"], stats["mem_used_total"], beside)

    def command(self, line: str) -> str:
        """Have it carry out a command; its answer. Raises `CommandError`."""
        ctl = str(self.mount / "ctl")
        argv = ["sh", "-c", 'printf "%s\\n" "$1" >"$0"', ctl, line]
        done = subprocess.run(argv, capture_output=True, timeout=_COMMAND_SECONDS, check=False)
        said = Path(ctl).read_text().strip()
        if done.returncode:
            raise CommandError(f"{line}: {said}")
        return said

    def minor_faults(self) -> int:
        """Minor page faults of the data threads so far."""
        stats = self.stats()
        threads = map(int, stats["data_threads"].split(","))
        return sum(processes.minor_faults(stats["worker_pid"], thread) for thread in threads)


def _all_there(supervisor: int) -> tuple[int, ...]:
    """The four processes of a device, when the last of them is there."""
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline:
        pids = processes.family(supervisor)
        if sorted(processes.names(pids)) == _NAMES:
            return pids
        time.sleep(_LOOK_SECONDS)
    raise PeerError(f"not all of {', '.join(_NAMES)} came within {_START_SECONDS} s")


@contextmanager
def vswap(size: int, **settings: object) -> Iterator[Vswap]:
    """Ours, started as `vswap up` does, with `Settings` by name. Raises `PeerError`."""
    with mount_point() as mount:
        text = json.dumps({"name": "bench", "mount": str(mount), "size": size, **settings})
        try:
            argv = daemon_command(Settings.from_json(text))
        except UserError as error:
            raise PeerError(str(error)) from None
        with served(argv, mount) as pids, loop(mount / "swap") as device:
            yield Vswap("vswap", device, True, _all_there(pids[0]), None, mount=mount)
