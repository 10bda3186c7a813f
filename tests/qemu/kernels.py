"""Debian's kernels, and what a guest needs of them before it has its root file system.

An initramfs holds busybox and the modules, in the order in which they need each other; its `init`
loads them, mounts the first disk and goes on with the program that the command line names.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from qemu.cache import cached, key_of

__all__ = ["KERNELS", "Kernel", "debian", "kernel"]

KERNELS = {"6.1": "linux-image-cloud-amd64", "6.12": "linux-image-6.12-cloud-amd64"}
"""By the version that a test asks for: the packages that depend on the newest of each."""

MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_console", "virtio-rng", "ext4", "loop", "fuse"),
    *("zram", "lz4", "lzo-rle"),
)
SECONDS = 300.0

INIT = """#!/bin/busybox sh
export PATH=/bin
busybox mount -t proc proc /proc
busybox mount -t devtmpfs dev /dev
for module in /modules/*; do busybox insmod $module; done
for word in $(busybox cat /proc/cmdline); do
    case $word in vswap.init=*) init=${word#vswap.init=} ;; esac
done
if [ "$init" = try ]; then echo alive >/dev/console; busybox poweroff -f; fi
busybox mount -o noatime /dev/vda /root
busybox mount --move /dev /root/dev
busybox umount /proc
exec busybox switch_root /root $init
"""


@dataclass(frozen=True)
class Kernel:
    """One that can be booted."""

    version: str
    image: Path
    initramfs: Path


def debian(*argv: str, cwd: Path | None = None) -> str:
    """What a program of Debian's says. Raises `CalledProcessError`."""
    done = subprocess.run(
        argv,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=True,
    )
    return done.stdout


def kernel(version: str) -> Kernel | None:
    """The newest of a version; None if there is none here. To be called with the cache locked."""
    package = _depends(KERNELS[version])
    if package is None:
        return None
    packages = [package, "busybox-static"]
    stamp = debian("apt-cache", "policy", *packages)
    wanted = re.findall(r"Candidate: (\S+)", stamp)
    key = key_of(*packages, *wanted, INIT, *MODULES)
    folder = cached(f"kernel{version}", key, lambda fresh: _make(fresh, packages))
    return Kernel(version, folder / "vmlinuz", folder / "initramfs")


def _depends(package: str) -> str | None:
    try:
        found = re.search(r"Depends: (linux-image-\S+)", debian("apt-cache", "depends", package))
    except subprocess.CalledProcessError:
        return None
    return found and found[1]


def _make(folder: Path, packages: list[str]) -> None:
    tree = folder / "tree"
    debian("apt-get", "download", *packages, cwd=folder)
    for archive in folder.glob("*.deb"):
        debian("dpkg-deb", "-x", str(archive), str(tree))
    (image,) = tree.glob("boot/vmlinuz-*")
    release = image.name.removeprefix("vmlinuz-")
    shutil.copy(image, folder / "vmlinuz")
    # Where it was installed from decides: lib or usr/lib.
    (modules,) = [path for path in tree.glob(f"**/lib/modules/{release}") if path.is_dir()]
    debian("depmod", "-b", str(modules.parents[2]), release)
    _initramfs(tree, modules, folder / "initramfs")
    shutil.rmtree(tree)
    for archive in folder.glob("*.deb"):
        archive.unlink()


def _initramfs(tree: Path, modules: Path, out: Path) -> None:
    root = tree.parent / "initramfs.d"
    for name in ("bin", "dev", "proc", "root", "modules"):
        (root / name).mkdir(parents=True)
    (busybox,) = tree.glob("**/bin/busybox")
    shutil.copy(busybox, root / "bin/busybox")
    for number, file in enumerate(_in_order(modules)):
        shutil.copy(file, root / f"modules/{number:02}-{file.name}")
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    names = "".join(f"{path.relative_to(root)}\n" for path in sorted(root.rglob("*")))
    with out.open("wb") as archive:
        subprocess.run(
            ["cpio", "--create", "--format=newc", "--owner=0:0", "--quiet"],
            input=names.encode(),
            stdout=archive,
            cwd=root,
            timeout=SECONDS,
            check=True,
        )
    shutil.rmtree(root)


def _in_order(modules: Path) -> list[Path]:
    """The files of `MODULES` and of what they need; a module that is built in has none."""
    needs = {}
    for line in (modules / "modules.dep").read_text().splitlines():
        file, _, needed = line.partition(":")
        needs[file] = needed.split()
    found: list[str] = []
    for name in MODULES:
        for file, others in needs.items():
            if re.fullmatch(rf"{re.escape(name)}\.ko(\.\w+)?", Path(file).name):
                found += [one for one in [*reversed(others), file] if one not in found]
    return [modules / file for file in found]
