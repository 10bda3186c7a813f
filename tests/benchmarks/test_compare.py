"""The command: what it does with its words, and what it writes, whatever happened."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench import compare
from bench.compare import chosen, starts
from bench.peers import Peer
from bench.peers.catalogue import Start
from bench.record import Record
from bench.turns import Step
from bench.work import QUICK

NAMES = ["vswap", "vswap, lz4", "zram lz4"]
STORE = Peer("store", "/dev/store", True, (), None)


@contextmanager
def store(size: int) -> Iterator[Peer]:
    yield STORE


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Step]:
    """The steps that were to be carried out; each gives a figure."""
    noted: list[Step] = []

    def note(
        given: Sequence[Step], peers: Mapping[str, Start], corpus: Path, record: Record
    ) -> None:
        for step in given:
            noted.append(step)
            record.add(step.peer, step.round, {"swapoff, s": 1.0})

    (tmp_path / "corpus").write_bytes(b"corpus")
    monkeypatch.setattr(compare, "PEERS", {"store": store})
    monkeypatch.setattr(compare, "carry_out", note)
    monkeypatch.setattr(compare, "source", lambda: tmp_path / "corpus")
    monkeypatch.setattr(compare, "need_root", lambda: True)
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    return noted


def called(monkeypatch: pytest.MonkeyPatch, *argv: str) -> int:
    monkeypatch.setattr(sys, "argv", ["bench compare", *argv])
    return compare.main()


def test_names_are_chosen_in_their_order_also_with_commas() -> None:
    assert chosen([], NAMES) == NAMES
    assert chosen(["zram lz4", "vswap"], NAMES) == ["vswap", "zram lz4"]
    assert chosen(["vswap, lz4"], NAMES) == ["vswap, lz4"]
    assert chosen(["zram lz4,vswap"], NAMES) == ["vswap", "zram lz4"]
    with pytest.raises(ValueError, match="no 'zswap'"):
        chosen(["zswap"], NAMES)


def test_settings_are_for_ours_alone() -> None:
    plain, own = starts({}), starts({"unit_pages": 8})
    assert list(own) == list(plain)
    assert {name for name in own if own[name] is not plain[name]} == {"vswap", "vswap, lz4"}


def test_a_run_writes_json_markdown_and_plots(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: list[Step]
) -> None:
    out = tmp_path / "out"
    assert called(monkeypatch, "--quick", "--work", "hog,swapoff", "--out", str(out)) == 0
    assert [step.work.name for step in steps] == ["hog, seq", "hog, random", "swapoff"]
    assert {path.name for path in out.iterdir()} == {"compare.json", "compare.md", "swapoff.png"}
    record = json.loads((out / "compare.json").read_text())
    assert record["results"] == {"store": [{"swapoff, s": 1.0}]}
    assert record["settings"]["requests_mib"] == str(QUICK.requests_mib)
    assert record["machine"]["kernel"]


def test_rounds_and_seconds_are_as_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: list[Step]
) -> None:
    argv = ["--quick", "--rounds", "2", "--seconds", "9", "--work", "fio", "--set", "codec=lz4"]
    assert called(monkeypatch, *argv, "--only", "store", "--out", str(tmp_path)) == 0
    assert [step.round for step in steps] == [1, 2]
    found = json.loads((tmp_path / "compare.json").read_text())["settings"]
    assert (found["rounds"], found["seconds"], found["--set codec"]) == ("2", "9.0", "lz4")


def test_an_interrupted_run_is_written_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: list[Step]
) -> None:
    def interrupted(
        given: Sequence[Step], peers: Mapping[str, Start], corpus: Path, record: Record
    ) -> None:
        record.add("store", 1, {"swapoff, s": 1.0})
        raise KeyboardInterrupt

    monkeypatch.setattr(compare, "carry_out", interrupted)
    assert called(monkeypatch, "--quick", "--out", str(tmp_path / "out")) == 130
    found = json.loads((tmp_path / "out" / "compare.json").read_text())
    assert found["results"] == {"store": [{"swapoff, s": 1.0}]}


def test_an_unknown_peer_ends_it_at_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, steps: list[Step]
) -> None:
    with pytest.raises(SystemExit):
        called(monkeypatch, "--only", "ramdisk", "--out", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()
