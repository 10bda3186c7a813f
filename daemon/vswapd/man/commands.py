"""vswap(1): the commands, by their own help."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator

import click

from vswapd.man import roff

__all__ = ["commands_page", "leaves"]

_VERBATIM = "\b"
_EXAMPLES = "Examples"

EXIT_STATUS = {
    "0": "It is done.",
    "1": "An error of the system, in one line; or a check has found something: of `vswap doctor`, "
    "warnings.",
    "2": "A mistake of whoever typed it, or something that is refused: the reason, in one line. Of "
    "`vswap doctor` also that it has found failures.",
    "130": "Interrupted (Ctrl-C, SIGTERM); one line says how things stand.",
}


def leaves(root: click.Group) -> Iterator[click.Context]:
    """Each command that does something, as it is typed, with those of groups in place of these."""
    yield from _below(root, click.Context(root, info_name="vswap", max_content_width=100))


def _below(group: click.Group, context: click.Context) -> Iterator[click.Context]:
    for name, command in group.commands.items():
        inner = click.Context(command, parent=context, info_name=name)
        if isinstance(command, click.Group):
            yield from _below(command, inner)
        else:
            yield inner


def commands_page(root: click.Group) -> Iterator[str]:
    """All but the title."""
    yield roff.section("name")
    yield f"vswap {roff.escape('-')} swap on compressed memory"
    yield roff.section("synopsis")
    yield f"{roff.bold('vswap')} COMMAND [OPTIONS] [ARGUMENTS]"
    yield roff.section("description")
    yield from roff.paragraphs(root.help or "")
    yield roff.section("commands")
    for context in leaves(root):
        yield from _command(context)
    yield roff.section("exit status")
    for status, about in EXIT_STATUS.items():
        yield from roff.definition(status, about)
    yield roff.section("examples")
    yield from roff.example(_examples(root.epilog))
    yield roff.section("see also")
    yield from roff.paragraphs("vswap.toml(5), vswapd(8), swapon(8), systemctl(1)")


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    pieces = command.collect_usage_pieces(context)
    yield roff.heading(" ".join([context.command_path, *pieces]))
    yield from roff.paragraphs(inspect.cleandoc(command.help or ""))
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None and isinstance(parameter, click.Option) and not parameter.is_eager:
            yield from roff.definition(*record)
    lists = _lists(context)
    rows = lists.pop(_EXAMPLES, [])
    for heading, terms in lists.items():
        yield from roff.paragraphs(f"{heading}:")
        for term, about in terms:
            yield from roff.definition(term, about)
    width = max((len(typed) for typed, _ in rows), default=0)
    examples = [f"{typed:<{width}}  {about}".rstrip() for typed, about in rows]
    examples += _examples(command.epilog)
    if examples:
        yield from roff.example(examples)


def _lists(context: click.Context) -> dict[str, list[tuple[str, str]]]:
    """What a command lists in the place of an epilog, by headings."""
    taken = _Taken()
    context.command.format_epilog(context, taken)
    return taken.lists


class _Taken(click.HelpFormatter):
    """Takes in what stands beneath headings, and formats nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.lists: dict[str, list[tuple[str, str]]] = {}
        self._heading = ""

    def write_heading(self, heading: str) -> None:
        self._heading = heading

    def write_dl(
        self, rows: Iterable[tuple[str, str]], col_max: int = 30, col_spacing: int = 2
    ) -> None:
        self.lists.setdefault(self._heading, []).extend(rows)

    def write_text(self, text: str) -> None:
        if self._heading:  # else it is an epilog as others have it
            self.write_dl([(text, "")])


def _examples(epilog: str | None) -> list[str]:
    """The lines of examples, without the heading that the help gives them."""
    lines = inspect.cleandoc((epilog or "").replace(_VERBATIM, "")).splitlines()
    return [line for line in lines if line and line != f"{_EXAMPLES}:"]
