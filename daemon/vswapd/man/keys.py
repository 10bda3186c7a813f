"""vswap.toml(5): the keys of a configuration, by their table and the options of `up`."""

from __future__ import annotations

from collections.abc import Iterator

import click

from vswapd.confkeys import KEYS, Key
from vswapd.man import roff

__all__ = ["keys_page"]

_DESCRIPTION = """\
What `vswap up` and `vswap@.service` make of a device stands in /etc/vswap.toml, which is TOML.
After it come /etc/vswap.d/*.toml by their names: each goes over what was read before it, key by
key. What is typed goes over all of them.

The table [defaults] holds for all devices; a table [device.NAME] for one, and goes over [defaults].
Root reads no file that belongs to somebody else, or that others than its owner may write.

`vswap config check` says everything that is wrong, and `vswap config show` what results.
"""

_SIZES = """\
A size is a number of bytes, or text: "4G" (k, M, G, T, P, E are powers of 1024), "50%" of the
machine's memory, or what is computed from that memory in bytes, called ram, with + - * / ( ) and
min and max: "min(ram / 2, 4G)". Numbers without a unit are bytes. What is computed is rounded down
to 4 KiB.
"""

_EXAMPLE = """\
[defaults]
codec = "zstd"

[device.swap0]
size = "min(ram / 2, 4G)"
memory-limit = "25%"
backing = "/var/lib/vswap-swap0"
priority = 100
"""


def keys_page(root: click.Group) -> Iterator[str]:
    """All but the title."""
    helps = {option.name: option for option in root.commands["up"].params}
    yield roff.section("name")
    yield f"vswap.toml {roff.escape('-')} the swap devices that vswap makes"
    yield roff.section("synopsis")
    yield "/etc/vswap.toml"
    yield ".br"
    yield "/etc/vswap.d/*.toml"
    yield roff.section("description")
    yield from roff.paragraphs(_DESCRIPTION)
    yield roff.section("keys")
    for key in KEYS.values():
        option = helps[key.option]
        assert isinstance(option, click.Option)
        yield from roff.definition(key.name, _about(key, option.help or ""))
    yield roff.section("sizes")
    yield from roff.paragraphs(_SIZES)
    yield roff.section("examples")
    yield from roff.example(_EXAMPLE.splitlines())
    yield roff.section("see also")
    yield from roff.paragraphs("vswap(1), vswapd(8)")


def _about(key: Key, help_text: str) -> str:
    """The option's help, values and default as a file has them, and where the key may stand."""
    about, _, meant = help_text.partition("[default:")
    only = "" if key.common else " Not in [defaults]."
    default = _default(key, meant.strip(" ]"))
    return f"{about.strip()} Takes {key.values}. Default: {default}.{only}"


def _default(key: Key, meant: str) -> str:
    """The value, with what it means if the help says so; or what is made of other things.

    (Of what belongs to one device the help tells for one, and not for any.)
    """
    if key.default is None:
        return meant if meant and key.common else key.otherwise
    written = _toml(key.default)
    if not meant or isinstance(key.default, bool):
        return written
    return f"{written}, which is {meant}"


def _toml(value: str | int | bool) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)
