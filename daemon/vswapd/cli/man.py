"""`vswap man`: the manual pages, made anew from the commands."""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem

from vswap.errors import UserError
from vswapd.cli.completers import beginning

__all__ = ["man"]


def _pages(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    from vswapd.man import PAGES  # noqa: PLC0415  # most commands need none

    return beginning(incomplete, dict.fromkeys(PAGES, ""))


@click.command(
    epilog="""\b
Examples:
  vswap man | man -l -           vswap(1)
  vswap man vswap.toml > vswap.toml.5
"""
)
@click.argument("page", default="vswap", metavar="[PAGE]", shell_complete=_pages)
@click.pass_context
def man(context: click.Context, page: str) -> None:
    """Print a manual page, as man(7) has it.

    PAGE is vswap, vswapd or vswap.toml. `vswap install` puts all of them where man(1) finds them.
    """
    from vswapd.man import PAGES  # noqa: PLC0415  # most commands need none

    found = PAGES.get(page)
    if found is None:
        raise UserError(f"no page {page!r}; there are {', '.join(PAGES)}")
    root = context.find_root().command
    assert isinstance(root, click.Group)
    click.echo(found.render(root), nl=False)
