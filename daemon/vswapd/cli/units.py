"""Our units in systemd: which of them are enabled, which run, and when it is to read them again."""

from __future__ import annotations

from pathlib import Path

import click

from vswap.errors import UserError
from vswapd.swapdev import run_program

__all__ = ["check_unused", "read_again"]

_BOOTED = Path("/run/systemd/system")  # sd_booted(3)
_SECONDS = 60.0
_ENABLED = {"etc": "", "run": "--runtime "}  # by where the links are: what takes them away
_PATTERNS = ("vswap@*.service", "vswap-metrics.service")
_ACTIVE = "--state=active,reloading,activating,deactivating"


def check_unused(root: Path) -> None:
    """Raise `UserError` if a unit of the system below `root` is enabled, or runs."""
    for folder, option in _ENABLED.items():
        below = root / folder / "systemd/system"
        links = [link for kind in ("wants", "requires") for link in below.glob(f"*.{kind}/*")]
        for name in sorted(link.stem for link in links if any(map(link.match, _PATTERNS))):
            raise UserError(f"{name} is enabled; `systemctl disable {option}{name}` first")
    if _is_served(root):
        for unit in _running():
            name = unit.removesuffix(".service")
            raise UserError(f"{name} is running; `systemctl stop {name}` first")


def read_again(root: Path) -> None:
    """Have systemd read its units again, if it is the one of the system below `root`."""
    if _is_served(root):
        _systemctl("systemd has not read its units again", "daemon-reload")


def _is_served(root: Path) -> bool:
    """Whether systemd runs, and in the system below `root`."""
    return root == Path("/") and _BOOTED.is_dir()


def _running() -> list[str]:
    """The names of those that run, also if they were never enabled."""
    options = ["--plain", "--no-legend", "--no-pager", _ACTIVE]
    told = _systemctl("systemd does not say what runs", "list-units", *options, *_PATTERNS)
    return [line.split()[0] for line in told.splitlines() if line.strip()]


def _systemctl(failed: str, *arguments: str) -> str:
    """What it prints. If it fails, or takes too long, that is told and no more."""
    try:
        ended = run_program(["systemctl", *arguments], _SECONDS)
        problem = ended.last_line if ended.code else None
    except (UserError, TimeoutError) as error:
        problem = str(error)
    if problem is None:
        return ended.stdout.decode(errors="replace")
    click.echo(f"vswap: warning: {failed}: {problem}", err=True)
    return ""
