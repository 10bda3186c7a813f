"""The harness itself: a guest boots, answers, and is noticed when it dies."""

from __future__ import annotations

import pytest
from qemu.conftest import Boot
from qemu.guest import GuestError

BOOT_SECONDS = 20.0


@pytest.mark.parametrize("kernel", ["6.1", "6.12"])
def test_a_guest_boots_to_a_prompt(kernel: str, boot: Boot) -> None:
    guest = boot(memory=160, kernel=kernel)
    assert guest.release.startswith(f"{kernel}.")
    assert guest.boot_seconds < BOOT_SECONDS
    done = guest.run("sh", "-c", "echo said; echo told >&2; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, "said\n", "told\n")
    assert guest.run("/no/such/program").returncode == 127
    modules = guest.sh("ls /sys/module").split()
    assert {"loop", "fuse", "zram"} <= set(modules)


def test_a_guest_that_dies_is_noticed(boot: Boot) -> None:
    guest = boot(memory=160, expected=lambda _line: True)
    job = guest.start("sleep", "100")
    guest.start("sh", "-c", "echo c >/proc/sysrq-trigger")
    with pytest.raises(GuestError, match="the guest has ended"):
        job.wait()
    assert "sysrq triggered crash" in guest.console.read_text()


def test_a_guest_that_hangs_is_ended(boot: Boot) -> None:
    guest = boot(memory=160)
    guest.limit(1.0)  # it boots as long as it takes
    with pytest.raises(GuestError, match="the guest has ended"):
        guest.run("sleep", "100")
