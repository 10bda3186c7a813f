"""Standard streams that are closed, as `vswap status >&-` has them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SOURCES = [str(Path(__file__).parents[2] / part) for part in ("", "daemon")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
CLOSED = ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"]


def ran(program: str, closed: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a Python program, by its options, with some streams closed."""
    return subprocess.run(
        ["sh", "-c", f'exec "$0" -W error "$@" {closed}', sys.executable, *program.split("\0")],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def vswap(closed: str, *args: str) -> subprocess.CompletedProcess[str]:
    return ran("\0".join(["-m", "vswapd", *args]), closed)


@pytest.mark.parametrize("closed", CLOSED)
@pytest.mark.parametrize(
    ("args", "codes"),
    [
        (["status"], {0, 1}),  # 1 if somebody has a device here that does not answer
        (["--help"], {0}),
        (["man"], {0}),
        (["top", "--once", "--interval", "0.1"], {0, 1}),
        (["up", "--size", "0"], {2}),
        (["down", "no-such"], {2}),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_does_as_ever(args: list[str], codes: set[int], closed: str) -> None:
    done = vswap(closed, *args)
    assert done.returncode in codes
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


PROGRAM = """
import os, sys
from vswapd.cli.streams import open_closed_streams
open_closed_streams()
print("said \\udcff"), print("said", file=sys.stderr)
fd = os.open("/dev/zero", os.O_RDONLY)
null = [os.path.samestat(os.fstat(each), os.stat(os.devnull)) for each in range(3)]
kept = [os.get_inheritable(each) for each in range(3)]
sys.exit(10 if fd > 2 and all(null) and all(kept) else 11)
"""


def test_nothing_else_takes_the_place_of_what_is_closed() -> None:
    assert ran(f"-c\0{PROGRAM}", "<&- >&- 2>&-").returncode == 10


def test_what_is_open_stays_as_it_is() -> None:
    code = "from vswapd.cli.streams import open_closed_streams as o; o(); print('here')"
    assert ran(f"-c\0{code}", "<&-").stdout == "here\n"
