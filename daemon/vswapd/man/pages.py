"""Which pages there are."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import click

import vswap
from vswapd.man import roff
from vswapd.man.commands import commands_page
from vswapd.man.daemon import daemon_page
from vswapd.man.keys import keys_page

__all__ = ["PAGES", "Page"]


@dataclass(frozen=True)
class Page:
    """One page. `body` makes its lines out of the root of all commands."""

    name: str
    section: int
    manual: str
    body: Callable[[click.Group], Iterable[str]]

    @property
    def file(self) -> str:
        """What the file is called, in the directory of its section."""
        return f"{self.name}.{self.section}"

    def render(self, root: click.Group) -> str:
        """The page, for man(1)."""
        title = roff.title(self.name, self.section, f"vswap {vswap.__version__}", self.manual)
        return roff.page(title, self.body(root))


PAGES = {
    page.name: page
    for page in (
        Page("vswap", 1, "User commands", commands_page),
        Page("vswapd", 8, "System administration", daemon_page),
        Page("vswap.toml", 5, "File formats", keys_page),
    )
}
