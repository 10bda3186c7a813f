"""The `vswap` command: its parts, and what becomes of an error.

=====================================  ====================================  =========
what happened                          what is seen on stderr                exit code
=====================================  ====================================  =========
a person's mistake (`UserError`)       one line                              2
options that make no sense             one line                              2
an error of the system (`OSError`)     one line                              1
Ctrl-C, SIGTERM                        one line that says how things stand   130
=====================================  ====================================  =========
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import click

import vswap
from vswap.errors import UserError, VswapError
from vswapd.cli.attach import attach
from vswapd.cli.backing import backing
from vswapd.cli.complete import completion
from vswapd.cli.config import config
from vswapd.cli.ctl import ctl
from vswapd.cli.doctor import doctor
from vswapd.cli.down import down
from vswapd.cli.install import install, uninstall
from vswapd.cli.interrupt import StoppedError
from vswapd.cli.man import man
from vswapd.cli.metrics import metrics
from vswapd.cli.report import report
from vswapd.cli.restart import restart
from vswapd.cli.run import run
from vswapd.cli.serve import serve
from vswapd.cli.status import status
from vswapd.cli.top import top
from vswapd.cli.up import up
from vswapd.conffile import ConfigError
from vswapd.paths import unusable

__all__ = ["main"]


@click.group(
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="""\b
Examples:
  vswap up --size 4G                   swap of 4 GiB; prints its loop device
  vswap up --memory-limit 1G --codec zstd --priority 100
  vswap up --backing /var/lib/vswap.img --backing-size 8G
  vswap up --no-swapon                 stop at the loop device
  vswap up --all                       the devices of /etc/vswap.toml
  vswap config check                   is that file right?
  vswap status                         what it holds, and in how much memory
  vswap doctor                         is this machine fit, and are its devices well?
  vswap top                            the same and what it does, live
  vswap report --since 2h              the same over time, as a page for a browser
  vswap metrics --listen 127.0.0.1:18792
  vswap restart                        after an upgrade: the new code, nothing lost
  vswap down                           bring the pages back, detach, stop
  vswap run --mount DIR --size 64M     only the file, in the foreground, as any user
  vswap install                        units, manual pages, completions; then
  systemctl enable --now vswap@swap0   swap at every boot
""",
)
@click.version_option(vswap.__version__, prog_name="vswap", message="%(prog)s %(version)s")
def _vswap() -> None:
    """Swap on compressed memory: a swap device that is made of a userspace daemon."""


_OF_DEVICES = (up, down, restart, run, status, backing, ctl, config, serve, attach)
_THAT_LOOK = (doctor, metrics, top, report)
_OF_SYSTEM = (install, uninstall, man, completion)
for _command in (*_OF_DEVICES, *_THAT_LOOK, *_OF_SYSTEM):
    _vswap.add_command(_command)


def main(args: Sequence[str] | None = None) -> int:
    """Run the command in `args` (None: the process's own) and return its exit code."""
    try:
        code = _vswap.main(args, prog_name="vswap", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read has read enough; nor can the rest be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:
        return _report(_mistake(error) or error)
    except (click.ClickException, click.Abort, VswapError) as error:
        return _report(error)
    return int(code or 0)


def _mistake(error: OSError) -> UserError | None:
    """The person's mistake behind an error, if it is one: only typed names are ever too long."""
    if error.errno != errno.ENAMETOOLONG or error.filename is None:
        return None
    return unusable(error.filename, error.strerror)


def _report(error: Exception) -> int:
    """Say in one line what went wrong and return the exit code for it."""
    for line in error.lines if isinstance(error, ConfigError) else [_explain(error)]:
        click.echo(f"vswap: {' '.join(line.split())}", err=True)
    return next((code for kind, code in _EXIT_CODES if isinstance(error, kind)), 1)


_EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (UserError, 2),
    (click.ClickException, 2),
    (StoppedError, 130),
    (click.Abort, 130),
)


def _explain(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "vswap"
        return f"{error.format_message().rstrip('.')} (`{command} --help` tells more)"
    if isinstance(error, click.ClickException):
        return error.format_message()
    return "interrupted" if isinstance(error, click.Abort) else str(error)
