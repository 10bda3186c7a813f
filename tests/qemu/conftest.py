"""Fixtures of the tests in virtual machines: kernels, the root file system, guests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from qemu.cache import locked
from qemu.guest import Guest, Machine
from qemu.kernels import Kernel, kernel
from qemu.root import SUITE, root_image

NEEDED = ("qemu-system-x86_64", "mmdebstrap", "mke2fs", "cpio", "depmod", "apt-get", "gcc")
PYTHON = (3, 11)
TRY_SECONDS = 6.0

Boot = Callable[..., Guest]
Tell = Callable[[str], None]

_TOLD = pytest.StashKey[list[str]]()


def _why_not() -> str | None:
    if os.geteuid():
        return "needs root: a Debian tree is made with chroot"
    for program in NEEDED:
        if shutil.which(program) is None:
            return f"there is no {program}"
    if sys.version_info[:2] != PYTHON:
        return f"packages for the guest's Python ({SUITE}'s) are made with Python 3.11 only"
    return None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    reason = _why_not()
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.qemu)
            if reason:
                item.add_marker(pytest.mark.skip(reason=reason))


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Print the figures, also those of tests that have passed."""
    if told := config.stash.get(_TOLD, []):
        terminalreporter.section("seen in virtual machines")
        for line in told:
            terminalreporter.line(line)


@pytest.fixture
def tell(pytestconfig: pytest.Config) -> Tell:
    """Have a line printed at the end."""
    return pytestconfig.stash.setdefault(_TOLD, []).append


@pytest.fixture(scope="session")
def kernels() -> dict[str, Kernel]:
    """Those that can be had here, by their versions."""
    with locked():
        found = {version: kernel(version) for version in ("6.1", "6.12")}
    assert found["6.1"] is not None
    return {version: one for version, one in found.items() if one is not None}


@pytest.fixture(scope="session")
def root() -> Path:
    """The root file system's image."""
    with locked():
        return root_image()


@pytest.fixture(scope="session")
def bare_root() -> Path:
    """An image in which `vswap install` has not been."""
    with locked():
        return root_image(installed=False)


@pytest.fixture(scope="session")
def accelerator(kernels: dict[str, Kernel]) -> str:
    """KVM if a guest boots with it, which the presence of /dev/kvm does not say."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg,thread=multi"
    one = kernels["6.1"]
    argv = [
        *("qemu-system-x86_64", "-machine", "q35", "-accel", "kvm", "-cpu", "max", "-m", "160"),
        *("-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(one.image), "-initrd", str(one.initramfs)),
        *("-append", "console=ttyS0 quiet panic=-1 vswap.init=try"),
    ]
    try:
        tried = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=TRY_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return "tcg,thread=multi"
    return "kvm" if b"alive" in tried.stdout else "tcg,thread=multi"


@pytest.fixture
def boot(
    kernels: dict[str, Kernel], root: Path, accelerator: str, tmp_path: Path
) -> Iterator[Boot]:
    """Boot guests: `boot(memory=256, kernel="6.1", ...)`, further words are `Machine`'s.

    At the end their consoles must not tell of anything wrong, but what a test has expected.
    """
    guests: list[tuple[Guest, Callable[[str], bool]]] = []

    def make(
        memory: int,
        kernel: str = "6.1",
        expected: Callable[[str], bool] = lambda _line: False,
        **more: Any,  # noqa: ANN401
    ) -> Guest:
        if kernel not in kernels:
            pytest.skip(f"no kernel {kernel} can be had here")
        folder = tmp_path / f"guest{len(guests)}"
        folder.mkdir()
        one = kernels[kernel]
        words = {"root": root, "accelerator": accelerator, **more}
        machine = Machine(one.image, one.initramfs, memory=memory, **words)
        guest = Guest(machine, folder)
        stack.callback(guest.stop)
        guests.append((guest, expected))
        return guest

    with ExitStack() as stack:
        yield make
        for guest, expected in guests:
            told = [line for line in guest.trouble() if not expected(line)]
            assert not told, "\n".join(told)
