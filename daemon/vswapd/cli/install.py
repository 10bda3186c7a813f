"""`vswap install`, `vswap uninstall`: units, manual pages, completions, a first configuration."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from vswap.errors import UserError
from vswapd.cli.completers import directories
from vswapd.cli.units import check_unused, read_again
from vswapd.manifest import Installed, Step, Verb
from vswapd.mounts import devices

__all__ = ["install", "uninstall"]

_PREFIX = "/usr/local"

_root_option = click.option(
    "--root",
    metavar="DIR",
    default="/",
    help="The system's root directory. [default: /]",
    shell_complete=directories,
)
_dry_option = click.option("--dry-run", is_flag=True, help="Only list what would be done.")


@click.command(
    epilog="""\b
Examples:
  vswap install                         then: systemctl enable --now vswap@swap0
  vswap install --dry-run
  vswap install --prefix /usr --root /mnt/image
"""
)
@click.option(
    "--prefix",
    metavar="DIR",
    default=_PREFIX,
    show_default=True,
    help="Where programs, pages and units go.",
    shell_complete=directories,
)
@_root_option
@_dry_option
@click.pass_context
def install(context: click.Context, prefix: str, root: str, dry_run: bool) -> None:
    """Put units, manual pages and completions of shells in place.

    And /etc/vswap.toml, if there is none. The units start the vswap that installs them. What
    somebody has changed is kept, and named; `vswap uninstall` takes away what was put there.
    """
    # Only this needs them.
    from vswapd.cli.system import find_program, system_files  # noqa: PLC0415
    from vswapd.cli.trust import doubts  # noqa: PLC0415

    commands = context.find_root().command
    assert isinstance(commands, click.Group)
    prefix = _absolute(prefix, "--prefix")
    installed = _installed(root, dry_run=dry_run)
    if installed.prefix not in (None, prefix):
        raise UserError(f"vswap is installed under {installed.prefix}; `vswap uninstall` first")
    program = find_program()
    for doubt in doubts(program, installed.root):
        click.echo(f"vswap: warning: {doubt}", err=True)
    wanted = system_files(prefix, program, commands)
    steps = installed.to_install(wanted)
    if not dry_run:
        installed.install(prefix, wanted, steps)
        read_again(installed.root)
    _tell(steps)


@click.command(
    epilog="""\b
Examples:
  systemctl disable --now vswap@swap0 && vswap uninstall
  vswap uninstall --dry-run
"""
)
@_root_option
@_dry_option
def uninstall(root: str, dry_run: bool) -> None:
    """Take away what `vswap install` has put in place.

    What was changed since is kept, and named. Refuses while a device is up, or a unit runs or is
    enabled.
    """
    installed = _installed(root, dry_run=dry_run)
    _check_unused(installed.root)
    steps = installed.to_uninstall()
    if not dry_run:
        installed.uninstall(steps)
        read_again(installed.root)
    _tell(steps)


def _installed(root: str, *, dry_run: bool) -> Installed:
    path = Path(_absolute(root, "--root"))
    if not path.is_dir():
        raise UserError(f"--root {root} is no directory")
    if not dry_run and path == Path("/") and os.geteuid() != 0:
        raise UserError("this needs root; --dry-run lists what would be done")
    return Installed.read(path)


def _absolute(path: str, option: str) -> str:
    if not path.startswith("/") or not path.isprintable():
        raise UserError(f"{option} {path!r} must be an absolute path")
    return os.path.normpath("/" + path.lstrip("/"))


def _check_unused(root: Path) -> None:
    if root == Path("/") and (present := devices()):
        name = present[0].name
        raise UserError(f"the device {name} is up; `vswap down {name}` first")
    check_unused(root)


def _tell(steps: Sequence[Step]) -> None:
    told = [step for step in steps if step.verb is not Verb.LEAVE]
    for step in told:
        why = " (changed, or not of vswap install)" if step.verb is Verb.KEEP else ""
        click.echo(f"{step.verb.value} {step.path}{why}")
    if not told:
        click.echo("nothing to do")
