"""The guest's root file system: Debian, this project as a user installs it, tests' programs.

Debian and the pinned Python packages change rarely and take a minute; the tree of them is kept. The
project's wheel is put into it, and an ext4 image made of it, whenever anything of ours changes.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from qemu.cache import cached, key_of
from qemu.kernels import debian

from bench import corpus as corpus_module
from bench.build import build
from bench.corpus import corpus
from vswapd.manifest import Installed

__all__ = ["SUITE", "root_image"]

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
PACKAGES = (
    *("python3", "python3-venv", "systemd-sysv", "udev", "tini", "kmod", "fuse3", "libfuse3-3"),
    *("procps", "e2fsprogs", "stress-ng"),
)
LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/locale/*", "/usr/share/info/*")
SOURCES = ("/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list")
IMAGE_SIZE = "1G"
UNIT = "vswap@swap0.service"
CORPUS_MIB = 64
PROGRAMS = ("hog",)

INIT = """#!/bin/sh
# Who looks after the guest has no pages in swap, where a test may make them unreadable. What it
# is charged stays with the group it was in: so this comes first.
mount -t sysfs sys /sys
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir /sys/fs/cgroup/hand
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
echo 0 >/sys/fs/cgroup/hand/memory.swap.max
echo $$ >/sys/fs/cgroup/hand/cgroup.procs
exec /usr/bin/tini -- /usr/bin/python3 -I /opt/test/agent.py
"""

SERVICE = """[Unit]
Description=The test's hand
DefaultDependencies=no
After=local-fs.target

[Service]
ExecStart=/usr/bin/python3 -I /opt/test/agent.py
# It sees the guest off.
KillMode=none
OOMScoreAdjust=-1000

[Install]
WantedBy=sysinit.target
"""


def root_image(*, installed: bool = True) -> Path:
    """The image, raw. To be called with the cache locked.

    In what is `installed`, `vswap install` has been, and the device swap0 is enabled; else there is
    the project's wheel, and no more.
    """
    base = _base()
    wheel = _wheel()
    files = [Path(__file__).parent / "agent.py"]
    programs = [build(name, base.parent / "programs") for name in PROGRAMS]
    key = key_of(
        base.name,
        *(_contents(file) for file in [*files, *programs]),
        wheel.read_bytes(),
    )
    made_of = _contents(Path(corpus_module.__file__))
    data = cached("corpus", key_of(str(CORPUS_MIB), made_of), _corpus) / "corpus"

    def make(folder: Path) -> None:
        tree = base / "tree"
        _install(tree, wheel)
        init = tree / "opt/test/init"
        init.write_text(INIT)
        init.chmod(0o755)
        for file in files:
            shutil.copy(file, tree / "opt/test")
        _take_away(tree)
        if installed:
            _in(tree, "/opt/vswap/bin/vswap", "install")
            _in(tree, "systemctl", "enable", UNIT)
        for program in programs:
            shutil.copy(program, tree / "opt/test" / program.name.partition("-")[0])
        shutil.copy(data, tree / "opt/test/corpus")
        image = folder / "root.ext4"
        debian("mke2fs", "-q", "-t", "ext4", "-m", "0", "-d", str(tree), str(image), IMAGE_SIZE)

    return cached("image" if installed else "bare", key, make) / "root.ext4"


def _contents(file: Path) -> bytes:
    return file.name.encode() + b"\0" + file.read_bytes()


def _corpus(folder: Path) -> None:
    corpus(folder / "corpus", CORPUS_MIB)


def _wheel() -> Path:
    """The project's, of the tree as it is; the same content gives the same file."""
    out = Path(sys.prefix) / "wheel"
    for stale in (out, ROOT / "build"):  # setuptools leaves there what is no longer in the tree
        shutil.rmtree(stale, ignore_errors=True)
    _pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(out), str(ROOT))
    (wheel,) = out.glob("vswap-*.whl")
    return wheel


def _pip(*arguments: str) -> None:
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    debian("env", "SOURCE_DATE_EPOCH=315532800", *argv)


def _base() -> Path:
    wanted = (ROOT / "requirements/run.txt").read_text()
    key = key_of(wanted, _contents(Path(__file__)))  # which says how, and of which packages
    return cached("base", key, _make_base)


def _make_base(folder: Path) -> None:
    tree = folder / "tree"
    sources = [source for source in SOURCES if Path(source).exists()][:1]
    wheels = folder / "wheels"
    requirements = ROOT / "requirements/run.txt"
    with ThreadPoolExecutor() as pool:  # either takes half a minute
        packages = pool.submit(
            _pip,
            *("wheel", "--require-hashes", "--no-build-isolation", "--requirement"),
            *(str(requirements), "--wheel-dir", str(wheels)),
        )
        debian(
            *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(PACKAGES)}"),
            *(f"--dpkgopt=path-exclude={pattern}" for pattern in LEFT_OUT),
            *(SUITE, str(tree), *sources),
        )
        packages.result()
    wheels = wheels.rename(tree / "opt/wheels")
    _in(tree, "python3", "-m", "venv", "/opt/vswap")
    names = [f"/opt/wheels/{wheel.name}" for wheel in wheels.glob("*.whl")]
    _in(tree, "/opt/vswap/bin/pip", "install", "--no-index", "--no-deps", *names)
    shutil.rmtree(wheels)
    (tree / "opt/test").mkdir()
    (tree / "etc/systemd/system/agent.service").write_text(SERVICE)
    (tree / "etc/fstab").write_text("/dev/vda / ext4 noatime 0 0\n")
    (tree / "etc/machine-id").write_text("")
    _in(tree, "systemctl", "enable", "agent.service")
    for unit in ("systemd-timesyncd.service", "apt-daily.timer", "dpkg-db-backup.timer"):
        with suppress(subprocess.CalledProcessError):
            _in(tree, "systemctl", "mask", unit)


def _install(tree: Path, wheel: Path) -> None:
    shutil.copy(wheel, tree / "opt")
    try:
        _in(
            *(tree, "/opt/vswap/bin/pip", "install", "--no-index", "--no-deps"),
            *("--force-reinstall", f"/opt/{wheel.name}"),
        )
    finally:
        (tree / "opt" / wheel.name).unlink()


def _take_away(tree: Path) -> None:
    """Undo what was done for the image before this one: the tree is kept."""
    before = Installed.read(tree)
    if before.files:
        with suppress(subprocess.CalledProcessError):  # it was interrupted, and has no unit
            _in(tree, "systemctl", "disable", UNIT)
        before.uninstall(before.to_uninstall())


def _in(tree: Path, *argv: str) -> None:
    """Run a program in the tree."""
    debian("chroot", str(tree), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *argv)
