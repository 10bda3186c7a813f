"""Fill words: numbers for words, for as long as a page is filled with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from model.effort import effort
from model.stores import StoreMaker, content

from vswap.geometry import PAGE_SIZE
from vswap.store import words as module
from vswap.store.cut import WORD
from vswap.store.entry import KIND_FILL, KIND_SHIFT
from vswap.store.region import Region
from vswap.store.words import MAX_WORDS, FillWords

MakeRegion = Callable[[int], Region]


def word(number: int) -> bytes:
    return (number + 1).to_bytes(WORD, "little")


@pytest.fixture
def words(make_region: MakeRegion) -> FillWords:
    return FillWords(make_region(FillWords.region_size()))


@pytest.fixture
def few(make_region: MakeRegion, monkeypatch: pytest.MonkeyPatch) -> FillWords:
    """Words of which there may be three."""
    monkeypatch.setattr(module, "MAX_WORDS", 3)
    return FillWords(make_region(FillWords.region_size()))


def taken(words: FillWords, what: bytes, pages: int = 1) -> int:
    """Take a word for pages that are published at once; its number."""
    number = words.take(what, pages)
    assert number is not None
    words.publish(pages, [])
    return number


def drop(words: FillWords, numbers: list[int]) -> None:
    """These pages, by the numbers of their words, are dead."""
    words.publish(0, numbers)


def test_a_word_is_read_back_by_its_number(words: FillWords) -> None:
    numbers = [taken(words, word(i)) for i in range(20)]
    assert len(set(numbers)) == 20
    assert [words.word(number) for number in numbers] == [word(i) for i in range(20)]


def test_a_word_taken_again_keeps_its_number(words: FillWords) -> None:
    """FILL-COUNT"""
    number = taken(words, word(1), 3)
    assert taken(words, word(1), 4) == number
    assert words.count[number] == 7
    assert words.pages == 7


def test_a_number_is_free_when_its_last_page_goes(words: FillWords) -> None:
    """FILL-COUNT"""
    number = taken(words, word(1), 3)
    drop(words, [number, number])
    assert taken(words, word(2)) != number
    drop(words, [number])
    assert words.count[number] == 0
    assert taken(words, word(3)) == number
    assert words.word(number) == word(3)


def test_a_word_that_went_and_comes_again_is_counted_anew(words: FillWords) -> None:
    """FILL-COUNT: nothing is left of its first life."""
    drop(words, [taken(words, word(1))])
    number = taken(words, word(1), 2)
    assert words.count[number] == 2
    assert words.count.sum() == words.pages == 2


def test_one_drop_may_be_of_many_words(words: FillWords) -> None:
    one, two = taken(words, word(1), 2), taken(words, word(2), 2)
    drop(words, [two, one, one])
    assert (words.count[one], words.count[two], words.pages) == (0, 1, 1)


def test_what_is_taken_is_staged_until_it_is_published(words: FillWords) -> None:
    """FILL-COUNT: an audit that runs beside a write can tell what no entry names yet."""
    number = words.take(word(1), 3)
    assert number is not None
    counts, staged = words.copy()
    assert (counts[number], staged) == (3, 3)
    words.publish(2, [])
    assert words.copy()[1] == 1
    assert words.count[number] == 3


def test_what_is_withdrawn_was_never_there(words: FillWords) -> None:
    """FILL-COUNT: of a write that fails."""
    kept = taken(words, word(1))
    number = words.take(word(2), 2)
    assert number is not None
    assert words.take(word(1), 1) == kept
    words.withdraw([number, kept, number])
    counts, staged = words.copy()
    assert counts.nonzero()[0].tolist() == [kept]
    assert (counts[kept], staged, words.pages) == (1, 0, 1)
    assert taken(words, word(3)) == number


def test_one_call_publishes_and_drops(words: FillWords) -> None:
    """FILL-COUNT: a word written over itself keeps its number."""
    number = taken(words, word(1))
    assert words.take(word(1), 1) == number
    words.publish(1, [number])
    assert (words.count[number], words.copy()[1]) == (1, 0)
    assert words.word(number) == word(1)


def test_a_word_in_use_does_not_change(words: FillWords) -> None:
    """FILL-WORD: whatever comes and goes beside it."""
    number = taken(words, word(0))
    for i in range(1, 2 * MAX_WORDS):
        drop(words, [taken(words, word(i))])
        assert words.word(number) == word(0)


def test_there_are_no_more_numbers_than_room(few: FillWords) -> None:
    for i in range(3):
        assert few.take(word(i), 1) is not None
    assert few.take(word(3), 1) is None
    assert few.pages == 3


def test_an_exhausted_word_list_still_takes_the_words_it_has(few: FillWords) -> None:
    """FILL-COUNT"""
    numbers = [taken(few, word(i)) for i in range(3)]
    assert few.take(word(1), 5) == numbers[1]
    assert few.count[numbers[1]] == 6


def test_a_refused_word_gets_the_number_that_is_given_back(few: FillWords) -> None:
    numbers = [taken(few, word(i)) for i in range(3)]
    assert few.take(word(9), 1) is None
    drop(few, [numbers[1]])
    assert few.take(word(9), 1) == numbers[1]


def test_all_numbers_lie_in_the_region(make_region: MakeRegion) -> None:
    region = make_region(FillWords.region_size())
    words = FillWords(region)
    numbers = [taken(words, word(i)) for i in range(MAX_WORDS)]
    assert sorted(numbers) == list(range(MAX_WORDS))
    assert region.size == MAX_WORDS * WORD
    assert words.take(word(MAX_WORDS), 1) is None


# --- In a store -------------------------------------------------------------------------


def page_of(which: int) -> bytes:
    return word(which) * (PAGE_SIZE // WORD)


def test_a_page_too_many_becomes_a_unit(make: StoreMaker) -> None:
    """What finds no number is stored as any other page, and reads the same."""
    slots = MAX_WORDS + 3
    store = make(slots=slots)
    lane = store.lane()
    pages = b"".join(map(page_of, range(slots)))
    lane.write(0, memoryview(pages))
    assert content(lane, 0, len(pages)) == pages
    statistics = store.statistics()
    assert (statistics.fill_pages, statistics.stored_pages) == (MAX_WORDS, 3)


def test_overwritten_fill_pages_give_their_numbers_back(make: StoreMaker) -> None:
    """FILL-COUNT: overwritten, discarded, and made zero."""
    store = make()
    lane = store.lane()
    words = store._parts.words
    lane.write(0, memoryview(page_of(1) * 4))
    assert store._parts.table.get(0) >> KIND_SHIFT == KIND_FILL
    lane.write(0, memoryview(page_of(2)))
    lane.discard(PAGE_SIZE, 2 * PAGE_SIZE)
    assert sorted(words.count[words.count > 0].tolist()) == [1, 1]
    lane.write(3 * PAGE_SIZE, memoryview(bytes(PAGE_SIZE)))
    assert words.pages == 1
    assert content(lane, 0, PAGE_SIZE) == page_of(2)


# --- Any order of takes and drops -------------------------------------------------------

_MOST = 5


class Machine(RuleBasedStateMachine):
    """FILL-COUNT, FILL-WORD: as a dict of words and their pages would have it."""

    def __init__(self) -> None:
        super().__init__()
        self.region = Region.create("words", FillWords.region_size())
        self.words = FillWords(self.region)
        del self.words._free[: MAX_WORDS - _MOST]
        self.pages: Counter[bytes] = Counter()
        self.numbers: dict[bytes, int] = {}

    @rule(which=st.integers(0, 8), pages=st.integers(1, 4))
    def take(self, which: int, pages: int) -> None:
        number = self.words.take(word(which), pages)
        self.words.publish(pages if number is not None else 0, [])
        known = self.numbers.get(word(which))
        if known is None and len(self.numbers) == _MOST:
            assert number is None
            return
        assert number is not None
        assert known in (None, number)
        self.numbers[word(which)] = number
        self.pages[word(which)] += pages

    @precondition(lambda self: self.pages)
    @rule(data=st.data())
    def drop(self, data: st.DataObject) -> None:
        alive = sorted(self.pages.elements())
        dying = data.draw(st.lists(st.sampled_from(range(len(alive))), unique=True, max_size=6))
        drop(self.words, [self.numbers[alive[i]] for i in dying])
        self.pages -= Counter(alive[i] for i in dying)
        self.numbers = {what: self.numbers[what] for what in self.pages}

    @invariant()
    def counts_are_right(self) -> None:
        counts = self.words.count
        assert {n: counts[n] for n in counts.nonzero()[0].tolist()} == {
            self.numbers[what]: pages for what, pages in self.pages.items()
        }
        assert self.words.pages == self.pages.total()

    @invariant()
    def words_are_right(self) -> None:
        for what, number in self.numbers.items():
            assert self.words.word(number) == what

    def teardown(self) -> None:
        self.region.close()


TestMachine = Machine.TestCase
TestMachine.settings = effort(25)
