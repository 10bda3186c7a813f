"""Manual pages, made of what the commands and the configuration say of themselves."""

from vswapd.man.pages import PAGES, Page

__all__ = ["PAGES", "Page"]
