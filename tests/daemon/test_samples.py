"""What devices say, and what follows from two times that they said it."""

from __future__ import annotations

import errno
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from vswapd import samples as module
from vswapd.mounts import Device
from vswapd.said import printable
from vswapd.samples import Sample, Watcher, sample_of
from vswapd.scraper import Answer, Scraper

DEVICE = Device("swap0", "/nowhere/swap0")


def said(now: float = 1.0, **stats: object) -> Answer:
    text = json.dumps({"worker_pid": 7, "worker_restarts": 0, **stats})
    return Answer(DEVICE, "swap0", text, time=now)


def sample(now: float, before: Sample | None = None, **stats: object) -> Sample:
    known = {} if before is None else {DEVICE.mount: before}
    return sample_of(said(now, **stats), known)


def test_a_rate_is_growth_by_time() -> None:
    first = sample(10.0, reads=100)
    assert sample(12.0, first, reads=150).rate("reads") == 25.0


def test_the_first_sample_has_no_rates() -> None:
    assert sample(10.0, reads=100).rate("reads") is None


@pytest.mark.parametrize("changed", [{"worker_pid": 8}, {"worker_restarts": 1}])
def test_nothing_has_a_rate_across_two_workers(changed: dict[str, object]) -> None:
    first = sample(10.0, reads=100)
    assert sample(11.0, first, reads=150, **changed).rate("reads") is None


def test_what_shrinks_has_no_rate() -> None:
    assert sample(11.0, sample(10.0, reads=100), reads=99).rate("reads") is None


def test_at_the_same_time_there_is_no_rate() -> None:
    assert sample(10.0, sample(10.0, reads=100), reads=200).rate("reads") is None


def test_a_sample_keeps_only_the_one_before() -> None:
    third = sample(3.0, sample(2.0, sample(1.0)))
    assert third.before is not None
    assert third.before.before is None


# --- How long requests took ----------------------------------------------------------------


def test_a_latency_is_of_the_time_between() -> None:
    """After days of fast reads a few slow ones are all that there is to see."""
    first = sample(10.0, read_buckets="0,1000000")
    found = sample(11.0, first, read_buckets="0,1000000,0,0,0,0,0,0,0,0,7").latency("read")
    assert found is not None
    assert found.count == 7
    assert found.quantile_us(0.5) > 500


def test_without_requests_a_latency_is_of_none() -> None:
    found = sample(11.0, sample(10.0, read_buckets=""), read_buckets="").latency("read")
    assert found is not None
    assert found.count == 0


@pytest.mark.parametrize(
    "buckets", [None, 7, [1], "-1", "x", "1,", "1.5", "\u00b2", "0", "1," * 99 + "1"]
)
def test_what_makes_no_sense_is_no_latency(buckets: object) -> None:
    first = sample(10.0, read_buckets="1,2")
    assert sample(11.0, first, read_buckets=buckets).latency("read") is None


def test_nor_is_there_one_of_two_workers() -> None:
    first = sample(10.0, read_buckets="1")
    assert sample(11.0, first, read_buckets="2", worker_pid=8).latency("read") is None
    assert first.latency("read") is None


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"reads"', "[" * 100_000, '"text"', "\0"]
)
def test_what_is_no_statistics_is_an_error(text: str) -> None:
    found = sample_of(Answer(DEVICE, "swap0", text), {})
    assert found.error == "the daemon answers, but not with statistics"
    assert found.number("reads") == 0


@pytest.mark.parametrize("value", ["7", None, [], float("nan"), float("inf"), 10**400, {}])
def test_what_is_no_number_counts_as_0(value: object) -> None:
    assert sample(1.0, reads=value).number("reads") == 0


def test_no_control_character_gets_through() -> None:
    hostile = Answer(DEVICE, "a\x1b[2Jb", error="c\rd\udcff")
    found = sample_of(hostile, {})
    assert (found.label, found.error) == ("a?[2Jb", "c?d?")
    assert sample(1.0, codec="\x9b1m").word("codec") == "?1m"
    assert printable("\u00e4 b") == "\u00e4 b"


# --- The watcher -----------------------------------------------------------------------


@dataclass
class Scene:
    """The devices that there are: directories in the place of their mounts."""

    folder: Path
    present: list[Device] = field(default_factory=list)
    now: float = 0.0

    def add(self, name: str) -> Device:
        device = Device(name, str(self.folder / name))
        Path(device.mount).mkdir()
        self.present.append(device)
        return device

    def say(self, device: Device, reads: int) -> None:
        self.now += 1
        Path(device.mount, "stats.json").write_text(json.dumps({"worker_pid": 1, "reads": reads}))

    def clock(self) -> float:
        return self.now


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    found = Scene(tmp_path)
    monkeypatch.setattr(module, "devices", lambda: list(found.present))
    return found


def test_devices_come_and_go(scene: Scene) -> None:
    watcher = Watcher(None, scene.clock)
    assert watcher.look().problem == "no vswap device is here; `vswap up` makes one"
    one = scene.add("one")
    scene.say(one, 5)
    assert [each.label for each in watcher.look().samples] == ["one"]
    two = scene.add("two")
    scene.say(two, 5)
    assert [each.label for each in watcher.look().samples] == ["one", "two"]
    scene.present.remove(one)
    look = watcher.look()
    assert ([each.label for each in look.samples], look.problem) == (["two"], None)


def test_one_that_does_not_answer_comes_back_with_a_rate(scene: Scene) -> None:
    device, watcher = scene.add("one"), Watcher(None, scene.clock)
    scene.say(device, 5)
    watcher.look()
    Path(device.mount, "stats.json").unlink()
    [silent] = watcher.look().samples
    assert silent.error is not None
    assert silent.error.startswith("the daemon of one cannot be asked")
    assert silent.rate("reads") is None
    scene.say(device, 8)
    [back] = watcher.look().samples
    assert (back.error, back.rate("reads")) == (None, 3.0)


def test_who_was_away_has_no_past(scene: Scene) -> None:
    """Another device may be mounted in its place."""
    device, watcher = scene.add("one"), Watcher(None, scene.clock)
    scene.say(device, 5)
    watcher.look()
    scene.present.clear()
    watcher.look()
    scene.present.append(device)
    scene.say(device, 8)
    assert watcher.look().samples[0].rate("reads") is None


def test_the_chosen_one_alone(scene: Scene) -> None:
    one, two = scene.add("one"), scene.add("two")
    scene.say(one, 1)
    watcher = Watcher(one, scene.clock)
    assert [each.label for each in watcher.look().samples] == ["one"]
    scene.present.remove(one)
    assert two in scene.present
    assert watcher.look().problem == f"no vswap device is at {one.mount} any more"


def test_no_process_to_be_had_is_a_problem_for_now(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, watcher = scene.add("one"), Watcher(None, scene.clock)
    scene.say(device, 1)

    def fail(self: Scraper, chosen: Iterable[Device] | None = None) -> list[Answer]:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(Scraper, "ask", fail)
        assert watcher.look().problem == "the devices cannot be asked: Cannot allocate memory"
    assert watcher.look().problem is None
