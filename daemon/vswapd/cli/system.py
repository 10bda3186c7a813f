"""What `vswap install` puts into a system, and where: hier(7), systemd.unit(5)."""

from __future__ import annotations

import os
import re
import shlex
import sys
from importlib import resources
from pathlib import Path

import click

from vswap.errors import UserError
from vswapd.cli.complete import script
from vswapd.man import PAGES
from vswapd.manifest import File

__all__ = ["find_program", "system_files", "unit"]

_CONFIG = Path("/etc/vswap.toml")
_UNIT, _METRICS = "vswap@.service", "vswap-metrics.service"
_EXAMPLE = "vswap.toml.example"
_DOCUMENTS = (_EXAMPLE, "grafana/vswap.json", "prometheus/vswap.rules.yml")
_UNIT_PREFIXES = ("/usr", "/usr/local")  # where systemd looks, beside /etc
_PLAIN = re.compile(r"[\w/.+-]+", re.ASCII)

_COMPLETIONS = {
    "bash": "share/bash-completion/completions/vswap",
    "zsh": "share/zsh/site-functions/_vswap",
    "fish": "share/fish/vendor_completions.d/vswap.fish",
}


def find_program() -> str:
    """The path of the `vswap` that belongs to this interpreter. Raises `UserError`."""
    path = Path(sys.executable).absolute().parent / "vswap"  # not resolved: that leaves a venv
    if not os.access(path, os.X_OK):
        raise UserError(f"there is no {path}, which a unit could start; install vswap with pip")
    if not _PLAIN.fullmatch(str(path)):
        raise UserError(f"{str(path)!r} cannot stand in a unit; install vswap at a plainer path")
    return str(path)


def unit(program: str, name: str = _UNIT) -> str:
    """A unit that starts `program`: the template for a device's, or another one by its `name`."""
    head, separator, rest = _data(name).partition("\n[Unit]\n")
    return head + separator + rest.replace("@VSWAP@", program)


def system_files(prefix: str, program: str, root: click.Group) -> list[File]:
    """All of it. `root` is the root of all commands, which pages and completions are made of."""
    below = Path(prefix)
    units = below / "lib/systemd" if prefix in _UNIT_PREFIXES else Path("/etc/systemd")
    texts = {
        **{units / "system" / name: unit(program, name) for name in (_UNIT, _METRICS)},
        **{
            below / f"share/man/man{page.section}" / page.file: page.render(root)
            for page in PAGES.values()
        },
        **{below / place: script(shell, root) for shell, place in _COMPLETIONS.items()},
        **{below / "share/doc/vswap" / name: _data(name) for name in _DOCUMENTS},
        _CONFIG: _data(_EXAMPLE),
    }
    files = [File(path, text.encode()) for path, text in texts.items()]
    command = below / "bin/vswap"
    if str(command) != program:
        script_text = f'#!/bin/sh\nexec {shlex.quote(program)} "$@"\n'
        files.append(File(command, script_text.encode(), 0o755))
    return files


def _data(name: str) -> str:
    return (resources.files("vswapd") / "data" / name).read_text()
