"""What goes to the disk: sealed for one place and one filling, and no nonce is used twice."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model.disks import (
    EVERYTHING,
    PLAIN,
    Device,
    DeviceMaker,
    device_maker,
    disk_clock,
    small_batches,
)
from model.effort import effort
from model.moves import Clock
from model.pages import mixed, noise, text
from model.stores import state_of

from vswap.codec import Bytes
from vswap.geometry import PAGE_SIZE
from vswap.store import Store
from vswap.store.cipher import TAG_SIZE, Cipher

KEY = bytes(range(32))
PLACE = (7, 4160)
PLAINS = {"a page of text": text(), "a byte": b"x", "nothing": b"", "noise": noise(16)}

make_device = pytest.fixture(device_maker)


@pytest.mark.parametrize("what", PLAINS)
def test_what_was_sealed_is_opened(what: str) -> None:
    plain = PLAINS[what]
    sealed = Cipher(KEY).seal(*PLACE, plain)
    assert len(sealed) == len(plain) + TAG_SIZE
    assert Cipher(KEY).open(*PLACE, sealed) == plain


@effort(100)
@given(
    sequence=st.integers(0, (1 << 64) - 1),
    offset=st.integers(0, (1 << 32) - 1),
    plain=st.binary(max_size=200),
)
def test_any_place_and_any_bytes_come_back(sequence: int, offset: int, plain: bytes) -> None:
    cipher = Cipher(KEY)
    assert cipher.open(sequence, offset, cipher.seal(sequence, offset, plain)) == plain


@pytest.mark.parametrize("form", [bytes, bytearray, lambda data: memoryview(bytearray(data))])
def test_all_forms_of_bytes_are_sealed_and_opened(form: Callable[[bytes], Bytes]) -> None:
    cipher = Cipher(form(KEY))
    assert cipher.open(*PLACE, form(cipher.seal(*PLACE, form(text())))) == text()


def test_any_flipped_bit_is_noticed() -> None:
    cipher = Cipher(KEY)
    sealed = bytearray(cipher.seal(*PLACE, b"sixteen bytes ok"))
    for at in range(len(sealed)):
        for bit in range(8):
            sealed[at] ^= 1 << bit
            assert cipher.open(*PLACE, sealed) is None
            sealed[at] ^= 1 << bit
    assert cipher.open(*PLACE, sealed) == b"sixteen bytes ok"


@pytest.mark.parametrize(
    "place",
    [(7, 4224), (7, 4096), (7, 0), (8, 4160), (6, 4160), (0, 4160), (7 + (1 << 32), 4160)],
)
def test_what_was_sealed_for_another_place_is_not_taken(place: tuple[int, int]) -> None:
    """Another offset, or another filling of the same disk segment."""
    cipher = Cipher(KEY)
    assert cipher.open(*place, cipher.seal(*PLACE, text())) is None


@pytest.mark.parametrize("at", [0, 15, 31])
def test_another_key_opens_nothing(at: int) -> None:
    other = bytearray(KEY)
    other[at] ^= 1
    assert Cipher(other).open(*PLACE, Cipher(KEY).seal(*PLACE, text())) is None


@pytest.mark.parametrize("size", [0, 1, TAG_SIZE - 1, TAG_SIZE, 100])
def test_what_is_too_short_or_cut_off_is_not_taken(size: int) -> None:
    cipher = Cipher(KEY)
    assert cipher.open(*PLACE, cipher.seal(*PLACE, noise())[:size]) is None


def test_zeros_and_noise_are_not_taken() -> None:
    """What lies on a disk that was never written to."""
    cipher = Cipher(KEY)
    for found in (bytes(4160), noise()):
        assert cipher.open(*PLACE, found) is None


def test_what_is_sealed_shows_nothing_of_what_it_is_of() -> None:
    sealed = Cipher(KEY).seal(*PLACE, bytes(PAGE_SIZE))
    pieces = {sealed[at : at + 16] for at in range(0, PAGE_SIZE, 16)}
    assert len(pieces) == PAGE_SIZE // 16


# --- NONCE-ONCE -------------------------------------------------------------------------


class Nonces:
    """All that is sealed from now on, by key and nonce; and what was sealed twice."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.used: dict[tuple[bytes, int, int], bytes] = {}
        self.twice: list[tuple[int, int]] = []
        self._keys: dict[int, bytes] = {}
        original_init, original_seal = Cipher.__init__, Cipher.seal
        kept: list[Cipher] = []  # or another might get the same id

        def init(cipher: Cipher, key: Bytes) -> None:
            original_init(cipher, key)
            kept.append(cipher)
            self._keys[id(cipher)] = bytes(key)

        def seal(cipher: Cipher, sequence: int, offset: int, plain: Bytes) -> bytes:
            name = self._keys[id(cipher)], sequence, offset
            if self.used.setdefault(name, bytes(plain)) != bytes(plain):
                self.twice.append((sequence, offset))
            return original_seal(cipher, sequence, offset, plain)

        monkeypatch.setattr(Cipher, "__init__", init)
        monkeypatch.setattr(Cipher, "seal", seal)

    def sequences(self) -> set[int]:
        return {sequence for _, sequence, _ in self.used}

    def keys(self) -> set[bytes]:
        return {key for key, _, _ in self.used}


@pytest.fixture
def nonces(monkeypatch: pytest.MonkeyPatch) -> Nonces:
    small_batches(monkeypatch)
    return Nonces(monkeypatch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return disk_clock(monkeypatch)


def churn(device: Device, clock: Clock, seed: int, turns: int = 60) -> None:
    """Writes, discards, writebacks, some of which fail once or twice, and cleaning of the disk."""
    chance = random.Random(seed)
    for turn in range(turns):
        slot = chance.randrange(device.model.slots - 16)
        maker = chance.choice((text, noise, mixed))
        device.write(slot, maker(chance.randint(1, 16), chance.randrange(50)))
        if chance.random() < 0.4:
            device.discard(chance.randrange(device.model.slots - 16), chance.randint(1, 16))
        if chance.random() < 0.2:
            twice = chance.choice((1, 2))
            device.disk.fails += [(errno.EIO, chance.choice((0, 8192)))] * twice
        device.write_back()
        if turn % 5 == 4:
            restack_all(device)
        clock.advance(1000)  # writing does not rest any more
    device.disk.fails.clear()
    # What could not be written is put aside until somebody grows or attaches the backing.
    device.store.backing.grow(device.disk.size)
    assert device.problems() == []


def restack_all(device: Device) -> None:
    """Clean the disk segments in use, as far as there is room for it."""
    jobs = device.store._upkeep.jobs
    full = device.store._parts.disk.log.full().segments
    with device.store._upkeep.lock:
        for _ in jobs.restack.empty(full[: device.room()]):
            pass


def test_no_nonce_is_used_twice_whatever_fails(
    make_device: DeviceMaker, nonces: Nonces, clock: Clock
) -> None:
    """NONCE-ONCE: a second try is the same bytes; what is made anew has another sequence."""
    device = make_device(disk=64)
    for seed in range(3):
        churn(device, clock, seed)
    assert nonces.twice == []
    assert len(nonces.sequences()) > 200
    assert len(nonces.used) > 1500


def test_a_backing_that_comes_after_goes_on_with_new_nonces(
    make_device: DeviceMaker, nonces: Nonces, clock: Clock
) -> None:
    """NONCE-ONCE: the key stays, and so the sequences must go on."""
    device = make_device(disk=64)
    for seed in range(3):
        churn(device, clock, seed, 20)
        assert device.detach() == "detached"
        device.store.backing.attach(type(device.disk)(64))
    assert nonces.twice == []
    assert len(nonces.keys()) == 1


def test_a_store_on_the_same_state_goes_on_with_new_nonces(
    make_device: DeviceMaker, nonces: Nonces, clock: Clock
) -> None:
    """NONCE-ONCE: the counter lies in the memory that outlives the worker, as the key does."""
    device = make_device(disk=64)
    churn(device, clock, 1, 20)
    before = nonces.sequences()
    device.discard(0, device.model.slots)
    for seed in range(2):
        other = Store(state_of(device.store), PLAIN)
        lane = other.lane()
        other.backing.attach(type(device.disk)(64))
        lane.write(0, memoryview(mixed(64, seed)))
        assert other.backing.write_back(EVERYTHING) > 0
        lane.discard(0, lane.size)
        fresh = nonces.sequences() - before
        assert fresh
        assert min(fresh) > max(before)
        before |= fresh
    assert nonces.twice == []
    assert len(nonces.keys()) == 1


def test_each_state_has_a_key_of_its_own(make_device: DeviceMaker, nonces: Nonces) -> None:
    for _ in range(2):
        make_device().store_on_disk(0, text())
    assert len(nonces.keys()) == 2
