"""A walk through all that a new user does, from `vswap install` to `vswap uninstall`.

In a guest that systemd has started, where vswap is only installed by pip. In the end there is on
its disk what there was before, and nothing else.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from qemu.conftest import Boot
from qemu.guest import Done, Guest
from qemu.stack import GROUP, Stack, cut_off, judged

SYSTEMD = "/lib/systemd/systemd"
UNIT = "vswap@swap0"
BOOT_SECONDS = 150.0
STEP_SECONDS = 120.0
HOG_SECONDS = 280.0
MEMORY = 512
HOG_MIB = 64
"""It swaps, by its group's limit."""

PROGRAM = "/opt/vswap/bin/vswap"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SHARE = "/usr/local/share"
PAGES = ("man1/vswap.1", "man8/vswapd.8", "man5/vswap.toml.5")
COMPLETIONS = (
    "bash-completion/completions/vswap",
    "zsh/site-functions/_vswap",
    "fish/vendor_completions.d/vswap.fish",
)

LIST = r"""
find / -xdev \( \
    -path /proc -o -path /sys -o -path /run -o -path /dev -o -path /tmp -o -path /var/tmp \
    -o -path /var/log -o -path /var/cache -o -path /var/lib/systemd -o -name __pycache__ \
    \) -prune -o -type f -printf '%p f %m %U %G %s\n' -o -printf '%p %y %m %U %G %l\n' |
    sort >/tmp/files-"$WHEN"
"""
"""What is on the disk, with kind, mode, owner, and size or target; but for what the system itself
keeps changing while it is up: /var/log has the journal, /var/lib/systemd seeds and timers, and the
interpreter caches what it has compiled."""

BOOTED = "while systemctl is-system-running | grep -qE 'initializing|starting'; do sleep 1; done"
"""Until then it writes to the disk, the machine's new id for one."""

WATCH = r"""
{
    until grep -qs swap0 /tmp/top; do sleep 0.5; done
    printf q
} | TERM=xterm COLUMNS=100 LINES=30 script --quiet --flush --return --command 'vswap top' /tmp/top
"""

FETCH = """
import time, urllib.request
end = time.monotonic() + 60
while True:
    try:
        with urllib.request.urlopen("http://127.0.0.1:18792/metrics", timeout=20) as page:
            print(page.read().decode())
            break
    except OSError:
        assert time.monotonic() < end
        time.sleep(0.5)
"""


@dataclass(frozen=True)
class User:
    """Somebody who types, as root and with a new user's PATH."""

    guest: Guest

    def types(self, line: str, seconds: float = STEP_SECONDS) -> str:
        """What a command says; it must succeed."""
        return self.tries(line, seconds).ok()

    def tries(self, line: str, seconds: float = STEP_SECONDS) -> Done:
        """A command that may fail."""
        return self.guest.run(*shlex.split(line), seconds=seconds, PATH=PATH)

    def sh(self, script: str, seconds: float = STEP_SECONDS, **env: str) -> str:
        """What a script says; it must succeed."""
        return self.guest.run("sh", "-ec", script, seconds=seconds, PATH=PATH, **env).ok()

    def is_refused(self, line: str, why: str) -> None:
        """A command is a mistake, and says so in one line."""
        done = self.tries(line)
        assert (done.returncode, done.stdout) == (2, ""), str(done)
        assert why in done.stderr and len(done.stderr.splitlines()) == 1, str(done)

    def main_process(self) -> str:
        """That of the device's unit."""
        return self.types(f"systemctl show -p MainPID --value {UNIT}").strip()


def test_from_install_to_uninstall(boot: Boot, bare_root: Path) -> None:
    guest = boot(memory=MEMORY, root=bare_root, init=SYSTEMD, seconds=900.0, expected=cut_off)
    user = User(guest)
    user.sh(BOOTED, seconds=BOOT_SECONDS)
    user.sh(LIST, WHEN="before")
    installs(user)
    looks(user)
    watches(user)
    asks_for_metrics(user)
    upgrades_and_swaps(user)
    uninstalls(user)
    user.sh(LIST, WHEN="after")
    assert int(user.sh("wc -l </tmp/files-before")) > 1000
    assert str(user.tries("diff /tmp/files-before /tmp/files-after")) == ""


def installs(user: User) -> None:
    assert user.tries("vswap --version").returncode == 127  # it is not on this PATH yet
    said = user.types(f"{PROGRAM} install")
    assert "write /usr/local/lib/systemd/system/vswap@.service\n" in said
    assert "keep" not in said
    for page in PAGES:
        assert ".TH" in user.types(f"head -n 3 {SHARE}/man/{page}")
    for place in COMPLETIONS:
        assert "vswap" in user.types(f"cat {SHARE}/{place}")
    assert user.types("vswap --version").startswith("vswap ")
    user.types(f"systemctl enable --now {UNIT}")
    assert "/dev/loop" in user.types("cat /proc/swaps")


def looks(user: User) -> None:
    assert "swap0" in user.types("vswap status")
    (device,) = json.loads(user.types("vswap status --json"))["devices"]
    assert (device["name"], device["swap"], "error" in device) == ("swap0", True, False)
    user.sh(f"until systemctl show -p StatusText {UNIT} | grep -q pages; do sleep 1; done")
    said = user.types(f"systemctl status --no-pager {UNIT}")
    assert "active (running)" in said
    assert " of memory taken" in said
    done = user.tries("vswap doctor")
    assert done.returncode in (0, 1), str(done)


def watches(user: User) -> None:
    assert "swap0" in user.types("vswap top --once")
    user.sh(WATCH)
    shown = user.types("cat /tmp/top")
    entered, left = shown.find("\x1b[?1049h"), shown.rfind("\x1b[?1049l")
    assert 0 <= entered < shown.find("swap0", entered) < left, shown
    user.sh("until vswap report -o /tmp/r.html; do sleep 2; done")  # a history takes 10 s to begin
    page = user.types("cat /tmp/r.html")
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "<svg" in page


def asks_for_metrics(user: User) -> None:
    assert 'vswap_up{device="swap0"} 1' in user.types("vswap metrics")
    user.types("systemctl start vswap-metrics")
    user.guest.write("/tmp/fetch.py", FETCH)
    assert 'vswap_up{device="swap0"} 1' in user.types("python3 -I /tmp/fetch.py")


def upgrades_and_swaps(user: User) -> None:
    old = user.main_process()
    user.types(f"systemctl reload {UNIT}")
    user.sh(f'while [ "$(systemctl show -p MainPID --value {UNIT})" = {old} ]; do sleep 1; done')
    assert user.main_process() != "0"
    stack = Stack(user.guest)
    stack.check()
    judged(Stack(user.guest).hog_within(32, HOG_MIB, "--passes", "1").wait(HOG_SECONDS))
    user.sh(f"rmdir {GROUP}")
    assert int(user.sh("sed -n 's/^pswpin //p' /proc/vmstat")) > 0
    stack.check()
    stats = stack.stats()
    assert stats["failed_reads"] == stats["failed_writes"] == 0


def uninstalls(user: User) -> None:
    user.is_refused("vswap uninstall", "the device swap0 is up")
    user.types(f"systemctl disable --now {UNIT}")
    assert "/dev/loop" not in user.types("cat /proc/swaps")
    assert user.tries("pgrep vswap-").returncode == 1
    user.is_refused("vswap uninstall", "vswap-metrics is running")
    user.types("systemctl stop vswap-metrics")
    said = user.types("vswap uninstall")
    assert "remove /usr/local/bin/vswap\n" in said
    assert "keep" not in said
