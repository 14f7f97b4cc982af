"""Whatever a venue answers or pushes: no exception, no end without its word, bounded time and size.

The long run is `make fuzz`; what it found stands in `test_found.py`, one example each.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Word
from tests.fuzz import answers

SAMPLE = 2_500  # answers a venue, drawn by a fixed seed
#: What a sample has to bring forth, or it proves nothing.
SEEN = {Word.CANCELLED, Word.FILLED, Word.CLOSED, Word.ABSENT, Word.FAILED, Word.OPEN, Word.LISTED, Word.UNCLEAR}


@pytest.mark.parametrize("venue", sorted(answers.VENUES))
def test_a_sample_of_spoilt_answers_ends_nothing_that_they_do_not_state(venue: str) -> None:
    rng, seen = Random(f"sample of {venue}"), Counter[Word]()
    for _ in range(SAMPLE):
        seen.update(answers.check(answers.case(rng, answers.VENUES[venue])))
    assert seen.keys() >= SEEN, SEEN - seen.keys()


@pytest.mark.parametrize("venue", sorted(answers.VENUES))
def test_a_sample_of_spoilt_pushes_ends_nothing_that_they_do_not_state(venue: str) -> None:
    rng = Random(f"pushes of {venue}")
    dossier = answers.VENUES[venue]
    assert sum(answers.check_frame(dossier, answers.frame(rng, dossier)) for _ in range(SAMPLE // 2)) > 100


@pytest.mark.parametrize("venue", sorted(answers.VENUES))
def test_a_sample_of_spoilt_answers_to_calls_aside_is_read(venue: str) -> None:
    rng, dossier = Random(f"asides of {venue}"), answers.VENUES[venue]
    for _ in range(SAMPLE // 2):
        answers.check_aside(dossier, answers.aside(rng, dossier))


@pytest.mark.parametrize("venue", sorted(answers.VENUES))
@settings(max_examples=60)
@given(rng=st.randoms(use_true_random=False))
def test_an_answer_that_hypothesis_finds_ends_nothing_that_it_does_not_state(venue: str, rng: Random) -> None:
    answers.check(answers.case(rng, answers.VENUES[venue]))
