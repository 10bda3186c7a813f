"""What shows how far something is, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

__all__ = ["bar", "page_bar", "ticker"]


def bar(title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """Show a bar while the block runs; it gets a function to call with the bytes done.

    Drawn only when that is called: no thread that would run while a child is started.
    """
    return _drawn(title, total, DownloadColumn(binary_units=True))


def page_bar(title: str, total: int) -> AbstractContextManager[Callable[[int], None]]:
    """As `bar`, for a number of pages."""
    count = TextColumn("{task.completed:.0f} of {task.total:.0f} pages")
    return _drawn(title, total, count, _Rate())


@contextmanager
def _drawn(title: str, total: int, *how_far: ProgressColumn) -> Iterator[Callable[[int], None]]:
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        *how_far,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
    with progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done, refresh=True)


class _Rate(ProgressColumn):
    """Pages a second, of late."""

    def render(self, task: Task) -> Text:
        """Nothing before it is known."""
        return Text("" if task.speed is None else f"{task.speed:.0f}/s")


@contextmanager
def ticker(title: str) -> Iterator[Callable[[str], None]]:
    """Show what is done and for how long, where the end is not known.

    As `bar`; the block's function takes what has been done so far, in a few words.
    """
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}: {task.fields[done]}"),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
    with progress:
        task = progress.add_task(title, total=None, done="")
        yield lambda done: progress.update(task, done=done, refresh=True)
