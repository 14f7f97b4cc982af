"""Looks: the right word for every state, and absence only from a place that was read to where the order would stand."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import ABOUT_THE_CALL, ENDED, Answer, Reply, Target, Word
from tests.conformance.suite.cases import namings
from tests.conformance.suite.claims import DEFINITE, unfounded
from tests.conformance.suite.dossier import Dossier
from tests.conformance.suite.intents import notes_of
from tests.conformance.suite.mutations import JUNK, NOISE, STATUSES, mutated
from tests.conformance.suite.papers import Look, answer
from tests.conformance.suite.test_cancels import check_bounded
from tests.conformance.suite.written import body, decode, look_target, other_look_target, row, target

NO_LIST: tuple[Any, ...] = (None, "", "[]", 0, True, [[]])
UNREADABLE: tuple[Any, ...] = (None, {}, "x", [], 7, {"orderId": None}, {"orderId": "², 3"}, {"orderId": 1.7e18})


def test_every_state_has_its_word(dossier: Dossier, look: Look) -> None:
    for state, word in dossier.papers.states[look.states].items():
        reply = read(dossier, look, body(dossier, look, [row(dossier, look, state)]))
        if word is Word.FILLED and reply.word is Word.TRIGGERED:
            assert look.intent.get("scope") in ("tpsl", "stop"), "only these fire"
        else:
            assert reply.word is word, f"{state}: {reply}"
        assert reply.venue_state == state
        assert reply.order_id == dossier.order_id
        assert reply.place


@pytest.mark.parametrize("state", ["", "FILL", "cancel", "filled ", "done!", "0", "null", "cancelled_by_system"])
def test_a_state_that_is_not_listed_is_unclear(dossier: Dossier, look: Look, state: str) -> None:
    assert read(dossier, look, body(dossier, look, [row(dossier, look, state)])).word is Word.UNCLEAR


def test_an_empty_list_is_what_the_papers_say(dossier: Dossier, look_in_list: Look) -> None:
    assert read(dossier, look_in_list, body(dossier, look_in_list, [])).word is look_in_list.empty


def test_rows_about_other_orders_say_nothing_of_this_one(dossier: Dossier, look: Look) -> None:
    for state in dossier.papers.states[look.states]:
        reply = read(dossier, look, body(dossier, look, [row(dossier, look, state, number=n) for n in _near(dossier)]))
        assert reply.word not in DEFINITE - {Word.ABSENT}, reply
        assert reply.word is not Word.OPEN, reply
        if not look.full:
            assert reply.word is Word.UNCLEAR, "it was asked for exactly this order"


def test_a_full_page_that_does_not_reach_the_order_proves_nothing(dossier: Dossier, look_in_pages: Look) -> None:
    """Lists are newest first: those above it fill the page."""
    look = look_in_pages
    state = next(iter(dossier.papers.states[look.states]))
    above = range(int(dossier.order_id) + look.full, int(dossier.order_id), -1)
    rows = [row(dossier, look, state, number=number) for number in above]
    assert len(rows) == look.full
    reply = read(dossier, look, body(dossier, look, rows, more=True))
    assert reply.word in (Word.UNREAD, Word.UNCLEAR), reply


def test_a_page_speaks_for_each_order_alone(dossier: Dossier, look_of_many: Look) -> None:
    look, states = look_of_many, dossier.papers.states[look_of_many.states]
    asked = [look_target(dossier, look), other_look_target(dossier, look)]
    for one in states:
        for other in states:
            rows = [row(dossier, look, other, number=int(dossier.other_id)), row(dossier, look, one)]
            first, second = decode(dossier, look.route, asked, body(dossier, look, rows))
            assert (first.venue_state, second.venue_state) == (one, other)
            assert (first.order_id, second.order_id) == (dossier.order_id, dossier.other_id)
            assert second.word is read(dossier, look, body(dossier, look, [row(dossier, look, other)])).word
        first, second = decode(dossier, look.route, asked, body(dossier, look, [row(dossier, look, one)], more=True))
        assert first.venue_state == one
        assert second.word in (Word.ABSENT, Word.UNREAD, Word.UNCLEAR)


@pytest.mark.parametrize("odd", UNREADABLE, ids=repr)
def test_a_row_that_cannot_be_read_proves_no_absence(dossier: Dossier, look: Look, odd: Any) -> None:
    state = next(iter(dossier.papers.states[look.states]))
    rows = [row(dossier, look, state, number=n) for n in _near(dossier)]
    for listed in ([odd], [odd, *rows], [*rows, odd]):
        assert read(dossier, look, body(dossier, look, listed)).word is Word.UNCLEAR


def test_two_rows_that_contradict_each_other_end_nothing(dossier: Dossier, look_in_list: Look) -> None:
    look = look_in_list
    states = dossier.papers.states[look.states]
    for one in states:
        for other in states:
            if states[one] is not states[other]:
                listed = [row(dossier, look, one), row(dossier, look, other)]
                reply = read(dossier, look, body(dossier, look, listed))
                assert reply.word not in ENDED, f"{one} and {other}: {reply}"


def test_the_same_client_id_at_another_pair_is_another_order(dossier: Dossier, look_by_client_id: Look) -> None:
    look = look_by_client_id
    for state in dossier.papers.states[look.states]:
        rows = [row(dossier, look, state, symbol=dossier.other_symbol)]
        assert read(dossier, look, body(dossier, look, rows)).word in (Word.UNCLEAR, Word.UNREAD, Word.ABSENT)


def test_a_row_with_anothers_client_id_is_another_orders(dossier: Dossier, look: Look) -> None:
    """Of an intent that names its order by a client id the order id was only learnt."""
    if look.intent.get("scope", "order") != "order":
        return
    named = target(dossier, {"client_order_id": "$client_id"}, {**look.notes, "oid": "$order_id"})
    for state, word in dossier.papers.states[look.states].items():
        mine, other = row(dossier, look, state), row(dossier, look, state, client_id=dossier.other_client_id)
        assert decode(dossier, look.route, [named], body(dossier, look, [mine]))[0].word is word
        if mine != other:
            assert decode(dossier, look.route, [named], body(dossier, look, [other]))[0].word is Word.UNCLEAR


def test_an_answer_without_what_was_asked_for_is_no_empty_one(dossier: Dossier, look: Look) -> None:
    whole = body(dossier, look, [])
    for path in _branches(whole):
        for junk in NO_LIST:
            reply = read(dossier, look, _with(whole, path, junk))
            if reply.word is not look.null or junk is not None:
                assert reply.word is Word.UNCLEAR or reply.word in ABOUT_THE_CALL, f"{path}={junk!r}: {reply}"


def test_an_answer_that_says_a_name_twice_says_nothing(dossier: Dossier, look: Look) -> None:
    for state in dossier.papers.states[look.states]:
        text = json.dumps(body(dossier, look, [row(dossier, look, state)]))
        for at in (found.end() for found in re.finditer(r"\{(?=\")", text)):
            name = text[at:].split('"', 2)[1]
            reply = read(dossier, look, f'{text[:at]}"{name}": null, {text[at:]}'.encode())
            assert reply.word is Word.UNCLEAR or reply.word in ABOUT_THE_CALL, f"{name} twice: {reply}"


@settings(max_examples=150)
@given(data=st.data())
def test_no_order_is_given_up_before_something_was_read_twice(dossier: Dossier, data: st.DataObject) -> None:
    """One look may come a moment before the venue's own lists know the order."""
    naming = data.draw(st.sampled_from(namings(dossier)))
    notes = data.draw(notes_of(dossier, naming.scope))
    places = sorted({dossier.venue.next_look(Target(dossier.intent(*naming), {"n": n})).look_class for n in range(6)})
    kinds = sorted({place.partition(":")[0] for place in places} | {r.name for r in dossier.venue.routes})
    notes["abs"] = data.draw(st.dictionaries(st.sampled_from(kinds), st.integers(1, 2), max_size=3))
    look = dossier.venue.next_look(Target(dossier.intent(*naming), notes))
    if look.done and not look.gap:
        assert sum(notes["abs"].values()) >= 2 or notes.get("walk"), notes


@settings(max_examples=150)
@given(data=st.data())
def test_any_answer_is_read_and_nothing_is_said_that_it_does_not_state(dossier: Dossier, data: st.DataObject) -> None:
    look = data.draw(st.sampled_from(dossier.papers.looks))
    states = st.sampled_from(list(dossier.papers.states[look.states]))
    numbers: st.SearchStrategy[int | None] = st.sampled_from([None, None, *_near(dossier)])
    count = data.draw(st.integers(0, 3))
    listed: list[Any] = [row(dossier, look, data.draw(states), number=data.draw(numbers)) for _ in range(count)]
    if data.draw(st.booleans()) and listed:
        listed.insert(0, data.draw(JUNK))
    made, status = data.draw(mutated(body(dossier, look, listed))), data.draw(STATUSES)
    reply = read(dossier, look, made, status)
    one = look_target(dossier, look)
    assert not unfounded(dossier, one, reply, made, status), unfounded(dossier, one, reply, made, status)
    check_bounded(reply)


@settings(max_examples=100)
@given(noise=NOISE, status=STATUSES, data=st.data())
def test_noise_is_read_as_nothing(dossier: Dossier, noise: bytes, status: int, data: st.DataObject) -> None:
    look = data.draw(st.sampled_from(dossier.papers.looks))
    state = data.draw(st.sampled_from(list(dossier.papers.states[look.states])))
    whole = answer(body(dossier, look, [row(dossier, look, state)])).body
    cut = data.draw(st.one_of(st.just(noise), st.integers(0, len(whole) - 1).map(lambda n: whole[:n])))
    one = look_target(dossier, look)
    (reply,) = dossier.venue.decode(dossier.route(look.route), [one], Answer(status, {}, cut))
    assert reply.word is Word.UNCLEAR or reply.word in ABOUT_THE_CALL


def test_an_end_under_another_status_is_not_believed(dossier: Dossier, look: Look) -> None:
    for status in (201, 302, 400, 404, 429, 500, 503):
        for state in dossier.papers.states[look.states]:
            reply = read(dossier, look, body(dossier, look, [row(dossier, look, state)]), status)
            assert reply.word is Word.UNCLEAR or reply.word in ABOUT_THE_CALL, reply


def read(dossier: Dossier, look: Look, said: Any, status: int = 200) -> Reply:
    (reply,) = decode(dossier, look.route, [look_target(dossier, look)], said, status)
    return reply


def _near(dossier: Dossier) -> tuple[int, int]:
    """Two orders whose ids differ from the first one's as little as can be."""
    return int(dossier.order_id) + 1, int(dossier.order_id) - 1


def _branches(value: Any, at: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """The way to each list or object that stands in an object."""
    if not isinstance(value, dict):
        return []
    found = [(*at, name) for name, item in value.items() if isinstance(item, dict | list) and _leads(item)]
    return found + [path for name, item in value.items() for path in _branches(item, (*at, name))]


def _leads(item: Any) -> bool:
    """Whether it is the list, or holds it."""
    return isinstance(item, list) or any(_leads(inner) for inner in item.values() if isinstance(inner, dict | list))


def _with(value: Any, path: tuple[str, ...], junk: Any) -> Any:
    if not path:
        return junk
    return {name: _with(item, path[1:], junk) if name == path[0] else item for name, item in value.items()}
