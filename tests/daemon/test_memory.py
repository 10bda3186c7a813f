"""Preparing the process: done in children, because it cannot be undone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vswapd.memory import has_spare

SOURCES = [str(Path(__file__).parents[2] / part) for part in ("", "daemon")]

SCRIPT = """
import json, os, resource, threading
from vswap import libc
from vswapd import memory

def policies():
    try:
        return sorted({line.split()[1] for line in open("/proc/thread-self/numa_maps")})
    except FileNotFoundError:
        return ["local"]

said = []
preparation = memory.prepare_process(said.append)
threads = [
    threading.Thread(target=memory.prepare_thread, args=(said.append,)) for _ in range(3)
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
grown = bytearray(64 << 20)  # a limit on locked memory would show here
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
print(json.dumps({
    "said": said,
    "locked": preparation.memory_locked,
    "flusher": preparation.io_flusher,
    "protected": preparation.oom_protected,
    "realtime": preparation.realtime,
    "policy": os.sched_getscheduler(0),
    "vmlck": int(status["VmLck"].split()[0]),
    "dumpable": libc.prctl(libc.PR_GET_DUMPABLE, 0),
    "core": resource.getrlimit(resource.RLIMIT_CORE),
    "oom": int(open("/proc/self/oom_score_adj").read()),
    "huge": int(status.get("THP_enabled", 0)),
    "policies": policies(),
}))
"""

WARNINGS = {
    "locked": ("memory cannot be locked", "CAP_IPC_LOCK"),
    "flusher": ("PR_SET_IO_FLUSHER cannot be set", "CAP_SYS_RESOURCE"),
    "protected": ("oom_score_adj cannot be set to -1000", "CAP_SYS_RESOURCE"),
    "realtime": ("SCHED_RR cannot be had", "CAP_SYS_NICE"),
}


def prepare(*prefix: str) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    command = [*prefix, sys.executable, "-W", "error", "-c", SCRIPT]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr.decode()
    result: dict[str, Any] = json.loads(ended.stdout)
    return result


def check(result: dict[str, Any]) -> None:
    """Each thing was achieved, or it was said, once, that it was not."""
    for key, (what, remedy) in WARNINGS.items():
        lines = [line for line in result["said"] if what in line]
        assert len(lines) == (0 if result[key] else 1), result
        assert all(line.startswith("warning: ") and remedy in line for line in lines)
    assert result["locked"] == (result["vmlck"] > 0)
    assert result["protected"] == (result["oom"] == -1000)
    assert result["policy"] == os.SCHED_OTHER  # until it serves
    assert result["dumpable"] == 0
    assert result["core"] == [0, 0]


def test_as_this_user() -> None:
    check(prepare())


def test_pages_stay_where_they_are() -> None:
    """Nobody makes huge ones of them, or brings them near to who uses them."""
    result = prepare()
    assert not result["huge"]
    assert result["policies"] == ["local"]


@pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("setpriv"), reason="drops capabilities: needs root"
)
def test_without_capabilities() -> None:
    result = prepare("setpriv", "--bounding-set=-all")
    check(result)
    assert not result["flusher"]
    assert not result["protected"]


@pytest.mark.parametrize("limit", [1 << 20, 4 << 30])
def test_finite_memlock_limit_is_refused_rather_than_run_into(limit: int) -> None:
    """Also one that mlockall itself would put up with."""
    limited = ("prlimit", f"--memlock={limit}:{limit}")
    if not all(map(shutil.which, ("setpriv", "prlimit"))) or os.geteuid() != 0:
        pytest.skip("sets limits and drops capabilities: needs root")
    if subprocess.run([*limited, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this limit may not be set here")
    result = prepare(*limited, "setpriv", "--bounding-set=-all")
    check(result)
    assert not result["locked"]


FORK_SCRIPT = """
import json, os
from vswapd import memory

def locked():
    status = dict(line.split(":", 1) for line in open("/proc/self/status"))
    return int(status["VmLck"].split()[0])

preparation = memory.prepare_process(lambda _line: None)
said = []
ours, theirs = os.pipe()
if not os.fork():
    before = locked()
    memory.prepare_fork(said.append)
    grown = bytearray(64 << 20)
    found = {
        "before": before,
        "after": locked(),
        "oom": int(open("/proc/self/oom_score_adj").read()),
        "said": said,
    }
    os.write(theirs, json.dumps(found).encode())
    os._exit(0)
os.wait()
found = json.loads(os.read(ours, 4096))
found["parent"] = preparation.memory_locked
found["protected"] = preparation.oom_protected
print(json.dumps(found))
"""


def test_a_fork_locks_its_own_memory_and_keeps_the_rest() -> None:
    """Locks are not inherited by a fork; and what is missing was said by its parent."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    command = [sys.executable, "-W", "error", "-c", FORK_SCRIPT]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr.decode()
    found = json.loads(ended.stdout)
    assert found["before"] == 0
    assert bool(found["after"]) == found["parent"]
    assert (found["oom"] == -1000) == found["protected"]
    assert found["said"] == []


def test_what_is_to_spare_is_above_what_the_kernel_keeps() -> None:
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert has_spare(4096)()
    assert not has_spare(2 * free + (1 << 40))()


PRECEDENCE_SCRIPT = """
import json, os, threading
from vswapd import memory

def policy(found):
    found.append(os.sched_getscheduler(0))

found = []
memory.take_precedence(inherited=INHERITED)
policy(found)
thread = threading.Thread(target=policy, args=(found,))
thread.start()
thread.join()
memory.give_precedence()
policy(found)
print(json.dumps([found, memory.prepare_process(lambda _line: None).realtime]))
"""


@pytest.mark.parametrize("inherited", [True, False])
def test_precedence_is_taken_inherited_and_given_back(inherited: bool) -> None:
    script = PRECEDENCE_SCRIPT.replace("INHERITED", str(inherited))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    command = [sys.executable, "-W", "error", "-c", script]
    ended = subprocess.run(command, env=environment, capture_output=True, check=False, timeout=60)
    assert ended.returncode == 0, ended.stderr.decode()
    (taken, of_thread, given), allowed = json.loads(ended.stdout)
    reset = 0 if inherited else os.SCHED_RESET_ON_FORK
    assert taken == (os.SCHED_RR | reset if allowed else os.SCHED_OTHER)
    assert of_thread == (os.SCHED_RR if allowed and inherited else os.SCHED_OTHER)
    assert given == os.SCHED_OTHER
