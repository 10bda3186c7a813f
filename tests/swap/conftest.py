"""Fixtures of the tests that swap."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from swap_support import Device, left_behind, missing, tear_down, vswap

from bench.build import build
from bench.corpus import corpus


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = missing()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.swap)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A directory to mount on, which is free again afterwards."""
    directory = tmp_path / f"test-{os.getpid()}"
    directory.mkdir()
    try:
        yield directory
    finally:
        if left_behind(directory):
            tear_down(directory)
        Path(f"/run/vswap/{directory.name}.log").unlink(missing_ok=True)
        with suppress(OSError):
            Path("/run/vswap").rmdir()


@pytest.fixture
def up(mount: Path) -> Callable[..., Device]:
    """Bring a device up with further arguments; it is taken down after the test.

    By force if need be, which puts no setting of the kernel's back: so none is raised, but
    by tests that are about that.
    """

    def bring_up(*arguments: str) -> Device:
        done = vswap("up", "--mount", str(mount), "--no-tune", *arguments)
        assert done.returncode == 0, done.stderr
        return Device(mount, done.stdout.strip())

    return bring_up


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The C programs of bench/, by name."""
    folder = tmp_path_factory.mktemp("programs")
    return lambda name: build(name, folder)


@pytest.fixture(scope="session")
def memory_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """64 MiB of real process memory."""
    return corpus(tmp_path_factory.mktemp("corpus") / "corpus.bin", 64)
