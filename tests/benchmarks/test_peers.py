"""The peers' parts that need no device: what they read, what they refuse, what they restore."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from bench.build import BuildError
from bench.peers import (
    Peer,
    PeerError,
    Stored,
    Zram,
    kernel_zram,
    kernel_zswap,
    libfuse,
    nbd,
    processes,
    swap,
    swapping,
    zram,
)
from bench.peers.catalogue import PEERS
from bench.peers.kernel_zswap import Zswap, without_zswap, zswap
from bench.peers.libfuse import nullfs
from bench.peers.nbd import Nbdkit
from bench.peers.ours import vswap
from bench.peers.served import served
from bench.peers.settings import changed
from vswapd.swapdev import SwapArea

MIB = 1 << 20
PAGE = 4096


def test_the_catalogue_has_all_peers_in_their_order() -> None:
    assert list(PEERS) == [
        *("vswap", "vswap, lz4", "zram lz4", "zram zstd", "zswap", "zswap lz4", "swap file"),
        *("nbdkit zstd", "uncompressed C", "do-nothing C", "pyfuse3"),
        *("vswap, not tuned", "do-nothing C, not tuned"),
    ]


# ---- settings -----------------------------------------------------------------------------


def test_settings_are_changed_in_order_and_restored_backwards(tmp_path: Path) -> None:
    file = tmp_path / "setting"
    file.write_text("3\n")
    with changed({file: "5"}), changed({file: "0"}):
        assert file.read_text() == "0"
    assert file.read_text() == "3"


def test_settings_are_restored_after_an_error(tmp_path: Path) -> None:
    file = tmp_path / "setting"
    file.write_text("3\n")
    with pytest.raises(KeyboardInterrupt), changed({file: "5"}):
        raise KeyboardInterrupt
    assert file.read_text() == "3"


def test_a_setting_that_is_refused_leaves_all_as_they_were(tmp_path: Path) -> None:
    file, missing = tmp_path / "setting", tmp_path / "missing"
    file.write_text("3\n")
    with (
        pytest.raises(PeerError, match="missing cannot be 'Y' here"),
        changed({file: "5", missing: "Y"}),
    ):
        pass
    assert file.read_text() == "3"


# ---- processes ----------------------------------------------------------------------------


@pytest.fixture
def proc(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Three processes: 10, its child 11 and its grandchild 12; and 20, which is none of them."""
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    (tmp_path / "self").mkdir()
    for pid, parent in ((12, 11), (20, 1), (10, 1), (11, 10)):
        entry = tmp_path / str(pid)
        thread = entry / "task" / str(pid)
        thread.mkdir(parents=True)
        fields = f"S {parent} 0 0 0 0 0 7 0 0 0 100 50 0"
        (entry / "stat").write_text(f"{pid} (a name) R 99) {fields}")
        (thread / "stat").write_text(f"{pid} (thread) {fields}")
        (thread / "schedstat").write_text("250000000 1 1\n")
        (entry / "smaps_rollup").write_text(
            "0-1 ---p 0 00:00 0 [rollup]\nPss: 100 kB\nPss_Anon: 60 kB\nPss_Shmem: 25 kB\n"
        )
    return tmp_path


@pytest.mark.usefixtures("proc")
def test_a_family_is_all_that_descends_from_a_process() -> None:
    assert processes.family(10) == (10, 11, 12)
    assert processes.family(12) == (12,)


def test_a_process_that_nobody_has_asked_after_is_not_alive(proc: Path) -> None:
    (proc / "11/stat").write_text("11 (a name) R 99) Z 10")
    assert processes.alive([10, 11, 12, 99]) == [10, 12]


@pytest.mark.usefixtures("proc")
def test_what_processes_take_is_added_up() -> None:
    peer = Peer("some", "/dev/loop0", True, (10, 11), None)
    ticks = os.sysconf("SC_CLK_TCK")
    assert peer.cpu_seconds() == pytest.approx(0.5)
    assert peer.cpu_seconds_ever() == pytest.approx(2 * 150 / ticks)
    assert peer.pss() == {"Pss": 200 << 10, "Pss_Anon": 120 << 10, "Pss_Shmem": 50 << 10}
    assert processes.minor_faults(10, 10) == 7


def test_the_kernels_own_has_no_processes_to_count() -> None:
    peer = Peer("some", "/dev/zram9", True, (), None)
    assert (peer.cpu_seconds(), peer.cpu_seconds_ever(), peer.pss()) == (0, 0, {})


def test_a_mapping_is_found_by_its_size() -> None:
    size = 4321 * PAGE
    with mmap.mmap(-1, size) as mapping:
        for page in (0, 7, 4320):
            mapping[page * PAGE] = 1
        assert processes.resident(os.getpid(), size) == 3 * PAGE
    with pytest.raises(ValueError, match="no mapping of"):
        processes.resident(os.getpid(), size)


def test_killing_ends_all_and_forgives_those_that_are_gone() -> None:
    process = subprocess.Popen(["sleep", "60"])
    processes.kill([process.pid])
    assert not processes.alive([process.pid])
    assert process.wait(10) == -signal.SIGKILL
    processes.kill([process.pid])


# ---- what each holds ----------------------------------------------------------------------


def test_zrams_pages_are_without_those_of_one_word(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_zram, "_BLOCK", tmp_path)
    (tmp_path / "zram9").mkdir()
    (tmp_path / "zram9/mm_stat").write_text("40960 9000 12288 0 12288 3 0 0 0\n")
    device = Zram("zram lz4", "/dev/zram9", True, (), None)
    assert device.stored() == Stored(pages=7, pool=12288, beside=0)


def test_zswaps_pages_are_without_those_of_others(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    meminfo = tmp_path / "meminfo"
    monkeypatch.setattr(kernel_zswap, "_MEMINFO", meminfo)
    meminfo.write_text("MemTotal: 9 kB\nZswap: 100 kB\nZswapped: 400 kB\nHugePages_Total: 0\n")
    cache = Zswap("zswap", "/swap", False, (), None, before=Stored(20, 30 << 10, 0))
    assert cache.stored() == Stored(pages=80, pool=70 << 10, beside=0)
    meminfo.write_text("MemTotal: 9 kB\n")
    with pytest.raises(PeerError, match=r"Linux 5\.19"):
        cache.stored()


def test_nbdkits_pages_are_the_least_of_those_written_and_those_in_use(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, proc: Path
) -> None:
    monkeypatch.setattr(nbd, "_BLOCK", tmp_path)
    (tmp_path / "loop9").mkdir()
    (tmp_path / "loop9/stat").write_text("1 0 8 0 5 0 800 0 0 0 0\n")
    device = Nbdkit(
        "nbdkit", "/dev/loop9", True, (10, 11), None, size=MIB, empty=20 << 10, written=10
    )
    found = {}
    for used in (None, 70 * PAGE, 400 * PAGE):
        area = None if used is None else SwapArea("/dev/loop9", MIB, used, 1)
        monkeypatch.setattr(nbd, "swap_area", lambda _path, area=area: area)
        found[used] = device.stored()
    (tmp_path / "loop9/stat").write_text("1 0 8 0 5 0 800000 0 0 0 0\n")
    monkeypatch.setattr(nbd, "swap_area", lambda _path: None)
    pool, beside = 40 << 10, 160 << 10
    assert device.stored() == Stored(MIB // PAGE, pool, beside)
    assert found == {
        None: Stored(90, pool, beside),
        70 * PAGE: Stored(70, pool, beside),
        400 * PAGE: Stored(90, pool, beside),
    }


# ---- what a machine lacks -----------------------------------------------------------------


def test_no_zswap_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel_zswap, "_PARAMETERS", tmp_path / "missing")
    assert without_zswap() == {}
    with pytest.raises(PeerError, match="no zswap"), zswap(MIB, tmp_path):
        pass


def test_no_zram_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kernel_zram, "_CONTROL", tmp_path)
    with pytest.raises(PeerError, match="no zram"), zram(MIB):
        pass


def test_no_nbdkit_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(PeerError, match="nbdfuse is not installed"), nbd.nbdkit(MIB):
        pass


def test_a_program_that_does_not_compile_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(_name: str, _out: Path) -> Path:
        raise BuildError("install gcc")

    monkeypatch.setattr(libfuse, "build", refuse)
    with pytest.raises(PeerError, match="install gcc"), nullfs(MIB, 1, tmp_path):
        pass


def test_settings_that_vswap_refuses_are_told() -> None:
    with pytest.raises(PeerError, match="unknown codec 'lz5'"), vswap(MIB, codec="lz5"):
        pass


def test_a_server_that_is_not_installed_is_told(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="not installed"), served(["vswap-no-such"], tmp_path):
        pass


def test_a_server_that_ends_says_why(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["sh", "-c", "echo first; echo no luck >&2; exit 3"]
    with pytest.raises(PeerError, match=r"sh does not serve: no luck"), served(argv, tmp_path):
        pass
    assert capfd.readouterr().err == "sh ended with 3: first\nno luck\n"


# ---- swapping -----------------------------------------------------------------------------


def test_nothing_is_swapped_to_what_keeps_nothing() -> None:
    peer = Peer("do-nothing C", "/dev/null", True, (), None, keeps=False)
    with pytest.raises(PeerError, match="does not keep"), swapping(peer):
        pass


@pytest.mark.parametrize(("there", "wanted"), [((), 1), ((-2,), 1), ((1000, 5), 1001)])
def test_a_peer_is_swapped_on_before_all_others(
    monkeypatch: pytest.MonkeyPatch, there: tuple[int, ...], wanted: int
) -> None:
    areas = [SwapArea(f"/dev/{at}", MIB, 0, priority) for at, priority in enumerate(there)]
    monkeypatch.setattr(swap, "swap_areas", lambda: areas)
    assert swap._first_priority() == wanted


def test_readahead_is_the_peers_or_the_kernels_and_zswap_is_off_but_for_itself(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kernel_zswap, "_PARAMETERS", tmp_path)
    enabled = tmp_path / "enabled"
    enabled.write_text("Y\n")
    ours = Peer("vswap", "/dev/loop9", True, (), 5)
    cache = Zswap("zswap", "/swap", False, (), None, before=Stored(0, 0, 0))
    cluster = Path("/proc/sys/vm/page-cluster")
    assert swap._settings(ours) == {cluster: "5", enabled: "N"}
    assert swap._settings(cache) == {cluster: "3"}
