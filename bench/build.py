"""Compile the C programs of the benchmarks.

    python bench/build.py [--out DIR] [NAME ...]

A program is compiled once for each content: its file name holds a hash of the source, of
the headers beside it and of the command line, so what is found is always what would have
been built.
"""

from __future__ import annotations

import argparse
import hashlib
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["OUT", "BuildError", "build"]

SOURCES = Path(__file__).resolve().parent / "c"
OUT = SOURCES.parent / "out"
FLAGS = ["-std=gnu17", "-O2", "-Wall", "-Wextra", "-pthread"]
PACKAGES = dict.fromkeys(("nullfs", "memfs"), "fuse3 >= 3.12")  # it knows fuse_loop_cfg_create
TIMEOUT = 120.0


class BuildError(Exception):
    """A program cannot be built here. One line that says what to do about it."""


def build(name: str, out: Path) -> Path:
    """Return the program `name` of `bench/c`, compiled into the directory `out`.

    Raises `BuildError` when the compiler or a library is missing, or refuses.
    """
    source = SOURCES / f"{name}.c"
    if not source.is_file():
        raise BuildError(f"no program {name!r}: {SOURCES} has {', '.join(_names())}")
    command = ["gcc", *FLAGS, str(source), *_package_flags(PACKAGES.get(name))]
    program = out / f"{name}-{_fingerprint(command)}"
    if not program.exists():
        out.mkdir(parents=True, exist_ok=True)
        _compile(command, program)
    return program


def _names() -> list[str]:
    return sorted(path.stem for path in SOURCES.glob("*.c"))


def _package_flags(package: str | None) -> list[str]:
    if package is None:
        return []
    found = _run(["pkg-config", "--cflags", "--libs", package], install="pkg-config")
    if found.returncode:
        raise BuildError(f"{package} is needed: install libfuse3-dev (pkg-config found none)")
    return shlex.split(found.stdout)


def _fingerprint(command: list[str]) -> str:
    digest = hashlib.sha256("\0".join(command).encode())
    for path in sorted([*SOURCES.glob("*.h"), *map(Path, filter(_is_source, command))]):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


def _is_source(argument: str) -> bool:
    return argument.endswith(".c")


def _compile(command: list[str], program: Path) -> None:
    """Through a temporary name: two test runs may want the same program at once."""
    with tempfile.TemporaryDirectory(dir=program.parent) as scratch:
        fresh = Path(scratch) / program.name
        # The output stands first: libraries must follow the source that needs them.
        done = _run([command[0], "-o", str(fresh), *command[1:]], install="gcc")
        if done.returncode:
            raise BuildError(f"{program.name} does not compile:\n{done.stderr.rstrip()}")
        fresh.replace(program)


def _run(argv: list[str], install: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=TIMEOUT, check=False)
    except FileNotFoundError:
        raise BuildError(f"{argv[0]} is needed to build this: install {install}") from None


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the C programs of the benchmarks.")
    parser.add_argument("name", nargs="*", help="programs of bench/c (default: all)")
    parser.add_argument("--out", type=Path, default=OUT)
    arguments = parser.parse_args()
    try:
        for name in arguments.name or _names():
            print(build(name, arguments.out))
    except BuildError as error:
        print(f"build: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
