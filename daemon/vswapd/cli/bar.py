"""What shows how far something is, on stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

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


@contextmanager
def bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show a bar while the block runs; it gets a function to call with the bytes done.

    Drawn only when that is called: no thread that would run while a child is started.
    """
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(binary_units=True),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
    )
    with progress:
        task = progress.add_task(title, total=total)
        yield lambda done: progress.update(task, completed=done, refresh=True)


@contextmanager
def page_bar(title: str, total: int) -> Iterator[Callable[[int], None]]:
    """As `bar`, for a number of pages."""
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f} of {task.total:.0f} pages"),
        _Rate(),
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
