"""What a shell may offer for DEVICE, and the scripts with which it asks.

What it asks is `vswap` itself, with a variable set: click's own way.
"""

from __future__ import annotations

from contextlib import suppress

import click
from click.shell_completion import (
    BashComplete,
    CompletionItem,
    ShellComplete,
    add_completion_class,
    get_completion_class,
)

from vswapd.cli.completers import beginning
from vswapd.conffile import read_configuration
from vswapd.mounts import devices

__all__ = ["SHELLS", "completion", "device_names", "script"]

SHELLS = ("bash", "zsh", "fish")
_VARIABLE = "_VSWAP_COMPLETE"
# What fish is told is "TYPE,VALUE"; click's script takes a value of several columns apart too.
_AT_COMMAS, _AT_FIRST_COMMA = 'string split ","', 'string split --max 1 ","'


def device_names(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The devices that are there, and those that are configured, rightly or not."""
    names: dict[str, str] = {}
    with suppress(OSError):
        names |= dict.fromkeys(read_configuration(None, []).devices, "configured")
        names |= {device.name: f"at {device.mount}" for device in devices()}
    return beginning(incomplete, dict(sorted(names.items())))


@add_completion_class
class _Bash(BashComplete):
    """bash divides `--codec=lz4` into three words, and click wants to see two."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is typed, and that one."""
        words, incomplete = super().get_completion_args()
        return [word for word in words if word != "="], incomplete


def script(shell: str, command: click.Command) -> str:
    """What a shell of `SHELLS` is to read so that it completes `vswap`."""
    kind = get_completion_class(shell)
    assert kind is not None
    # Not by the class's own: bash's looks for a bash, and need not find one here.
    text = ShellComplete.source(kind(command, {}, "vswap", _VARIABLE)).strip() + "\n"
    return text.replace(_AT_COMMAS, _AT_FIRST_COMMA)


@click.command(
    epilog="""\b
Examples:
  eval "$(vswap completion bash)"          in this shell
  vswap completion fish | source
  vswap install                            for all users, and for good
"""
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes commands, options and what they take."""
    click.echo(script(shell, context.find_root().command), nl=False)
