"""What a shell may offer for an argument or an option's value: files, directories, known values.

They only offer. What is right is told by whoever takes the value, also of what comes from a
configuration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import click
from click.shell_completion import CompletionItem

__all__ = ["Completer", "beginning", "directories", "files", "list_of", "one_of"]

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def files(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Files, which the shell itself looks for, and directories on the way to them."""
    return [CompletionItem(incomplete, type="file")]


def directories(
    _context: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Directories, which the shell itself looks for."""
    return [CompletionItem(incomplete, type="dir")]


def one_of(values: Iterable[object]) -> Completer:
    """Values as they are to be typed, in their order."""
    described = {str(value): "" for value in values}
    return lambda _context, _parameter, incomplete: beginning(incomplete, described)


def list_of(described: Mapping[str, str]) -> Completer:
    """A list of names, with commas between them; each is offered once, and may be typed small."""

    def complete(
        _context: click.Context, _parameter: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        before, comma, last = incomplete.rpartition(",")
        taken = before.upper().split(",")
        left = {
            before + comma + name: help for name, help in described.items() if name not in taken
        }
        return beginning(before + comma + last.upper(), left)

    return complete


def beginning(incomplete: str, described: Mapping[str, str]) -> list[CompletionItem]:
    """What begins with what is typed, and what a shell that can show it may say of it."""
    return [
        CompletionItem(value, help=help or None)
        for value, help in described.items()
        if value.startswith(incomplete)
    ]
