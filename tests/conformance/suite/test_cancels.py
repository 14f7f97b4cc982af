"""Answers to cancels: the venue's code table row by row, in every shape it comes in; and whatever is not stated about
an order is never said of it."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import ABOUT_THE_CALL, ENDED, Answer, Reply, Stage, Word
from tests.conformance.suite.claims import DEFINITE, names, objects, unfounded
from tests.conformance.suite.dossier import Dossier
from tests.conformance.suite.mutations import NOISE, STATUSES, mutated
from tests.conformance.suite.papers import Cancelled, Code, Refusal, answer, fill
from tests.conformance.suite.written import decode, places, refusal_body, targets

#: What says nothing certain of an order that was not touched for sure.
VAGUE = {Word.UNCLEAR, Word.SPLIT, *ABOUT_THE_CALL}


def test_a_recorded_answer_means_what_its_page_says(dossier: Dossier, cancelled: Cancelled) -> None:
    replies = decode(
        dossier, cancelled.route, targets(dossier, cancelled), written(dossier, cancelled), cancelled.status
    )
    assert [reply.word for reply in replies] == list(cancelled.words)


def test_every_code_leads_to_its_class(dossier: Dossier, refusal: Refusal) -> None:
    for code in dossier.papers.items if refusal.item else dossier.papers.codes:
        named = targets(dossier, refusal)
        replies = decode(dossier, refusal.route, named, refusal_body(dossier, refusal, code), refusal.status)
        wanted = expected(dossier, refusal, code)
        assert replies[0].word in wanted, f"{code}: {replies[0]}"
        if refusal.item:
            assert replies[0].word is code.word or not DEFINITE & {replies[0].word}
        else:
            assert {reply.word for reply in replies} == {replies[0].word}, "a refusal of the whole call is for each"


def expected(dossier: Dossier, refusal: Refusal, code: Code) -> set[Word]:
    """What a code may lead to. Of many orders it says nothing about any one; as an answer to a look, only that the call
    was not served, or that there is no such pair; for one item, what is about the account makes no sense."""
    if dossier.route(refusal.route).stage is Stage.LOOK:
        if code.word in ABOUT_THE_CALL or code.word is Word.LATER or code.pair:
            return {code.word}
        return {Word.UNCLEAR, Word.ABSENT} if code.word is Word.GONE and len(refusal.intents) == 1 else {Word.UNCLEAR}
    if refusal.item:
        return {Word.UNCLEAR} if code.word in (Word.ACCOUNT, Word.CLOCK, Word.SPLIT) else {code.word}
    if len(refusal.intents) == 1:
        return {code.word}
    many = {Word.FAILED: Word.SPLIT, Word.DOUBTED: Word.SPLIT, Word.GONE: Word.UNCLEAR, Word.ACKNOWLEDGED: Word.UNCLEAR}
    return {many.get(code.word, code.word)}


@pytest.mark.parametrize("code", ["99999", "", "000000", "00001", "ok ", "-0", "success"])
def test_a_code_that_is_not_listed_is_unclear(dossier: Dossier, refusal: Refusal, code: str) -> None:
    body = fill(refusal.body, code=code, code_number=99_999, text="what has never been seen", **places(dossier))
    replies = decode(dossier, refusal.route, targets(dossier, refusal), body, refusal.status)
    assert replies[0].word is Word.UNCLEAR, replies[0]


@pytest.mark.parametrize("status", [500, 502, 503, 504, 599])
def test_a_server_error_is_unclear_whatever_it_says(dossier: Dossier, status: int) -> None:
    """It may come from a gateway in front of a venue that did execute."""
    for body, cancelled in _all(dossier):
        for reply in decode(dossier, cancelled.route, targets(dossier, cancelled), body, status):
            assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize("status", [201, 204, 301, 302, 304, 307, 400, 403, 404, 409, 418, 429])
def test_success_under_another_status_is_not_believed(dossier: Dossier, status: int) -> None:
    for body, cancelled in _all(dossier):
        for reply in decode(dossier, cancelled.route, targets(dossier, cancelled), body, status):
            assert reply.word in VAGUE, reply


@pytest.mark.parametrize("status", [200, 302, 400, 502])
@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{}", b"0", b"\xff\xfe", b"<html>Just a moment...</html>", b'{"code"', b"[" * 4_000]
)
def test_what_cannot_be_read_is_unclear(dossier: Dossier, body: bytes, status: int) -> None:
    for cancelled in dossier.papers.cancels:
        route = dossier.route(cancelled.route)
        for reply in dossier.venue.decode(route, targets(dossier, cancelled), Answer(status, {}, body)):
            assert reply.word is Word.UNCLEAR, reply


@settings(max_examples=150)
@given(data=st.data())
def test_any_answer_is_read_and_nothing_is_said_that_it_does_not_state(dossier: Dossier, data: st.DataObject) -> None:
    cancelled = data.draw(st.sampled_from(dossier.papers.cancels))
    refusals = [refusal for refusal in dossier.papers.refusals if refusal.route == cancelled.route]
    body, named = written(dossier, cancelled), targets(dossier, cancelled)
    if data.draw(st.booleans()) and refusals:
        refusal, code = data.draw(st.sampled_from(refusals)), data.draw(st.sampled_from(dossier.papers.codes))
        body, named = refusal_body(dossier, refusal, code), targets(dossier, refusal)
    body, status = data.draw(mutated(body)), data.draw(STATUSES)
    for one, reply in zip(named, decode(dossier, cancelled.route, named, body, status), strict=True):
        assert not unfounded(dossier, one, reply, body, status), unfounded(dossier, one, reply, body, status)
        check_bounded(reply)


@settings(max_examples=100)
@given(noise=NOISE, status=STATUSES, data=st.data())
def test_noise_is_read_as_nothing(dossier: Dossier, noise: bytes, status: int, data: st.DataObject) -> None:
    """Also a recorded answer that breaks off, at any byte."""
    cancelled = data.draw(st.sampled_from(dossier.papers.cancels))
    whole = answer(written(dossier, cancelled)).body
    body = data.draw(st.one_of(st.just(noise), st.integers(0, len(whole) - 1).map(lambda n: whole[:n])))
    named = targets(dossier, cancelled)
    for reply in dossier.venue.decode(dossier.route(cancelled.route), named, Answer(status, {}, body)):
        assert reply.word in VAGUE
        check_bounded(reply)


def test_an_answer_about_other_orders_says_nothing(dossier: Dossier, cancelled_order: Cancelled) -> None:
    """Ids that differ in one digit, as a rounded number does."""
    named, whole = targets(dossier, cancelled_order), written(dossier, cancelled_order)
    replies = decode(dossier, cancelled_order.route, named, _with_other_ids(dossier, whole))
    for one, reply in zip(named, replies, strict=True):
        if any(names(dossier, row, one) for row in objects(whole)):
            assert reply.word is Word.UNCLEAR, reply


def test_contradicting_items_say_nothing(dossier: Dossier, cancelled: Cancelled) -> None:
    """The same order once more in each list, with the venue's other words for its state and its other codes."""
    named = targets(dossier, cancelled)
    for body in _contradicted(dossier, written(dossier, cancelled)):
        for one, reply in zip(named, decode(dossier, cancelled.route, named, body), strict=True):
            if sum(names(dossier, row, one) for row in objects(body)) > 1:
                assert reply.word not in ENDED, reply


def test_a_list_that_names_one_order_too_many_ends_nothing(dossier: Dossier, cancelled_order: Cancelled) -> None:
    """Its rows may stand under their neighbours' ids."""
    named, body = targets(dossier, cancelled_order), written(dossier, cancelled_order)
    if _with_one_more(dossier, body):
        replies = decode(dossier, cancelled_order.route, named, body)
        assert not DEFINITE & {reply.word for reply in replies}, replies


def check_bounded(reply: Reply) -> None:
    """What an answer leaves behind can stand in a state line and in an event."""
    assert len(reply.text) <= 600
    assert len(reply.code) <= 32
    assert len(reply.venue_state) <= 64
    for text in (reply.order_id, reply.client_order_id, reply.child_order_id):
        assert len(text) <= 64
        assert not set(text) & set(" ,")
        assert text.isascii()
    assert reply.filled == "" or reply.filled.replace(".", "", 1).isdecimal()
    assert 0 <= reply.retry_us <= 3_600_000_000
    assert reply.retry_at_ms >= 0
    assert len(orjson.dumps(reply.notes)) < 100_000


def written(dossier: Dossier, cancelled: Cancelled) -> Any:
    return fill(cancelled.body, **places(dossier))


def _all(dossier: Dossier) -> list[tuple[Any, Cancelled]]:
    return [(written(dossier, cancelled), cancelled) for cancelled in dossier.papers.cancels]


def _with_other_ids(dossier: Dossier, value: Any) -> Any:
    """The same answer with each id one digit off."""
    ids = (dossier.order_id, dossier.other_id, dossier.client_id, dossier.other_client_id)
    if isinstance(value, dict):
        return {name: _with_other_ids(dossier, item) for name, item in value.items()}
    if isinstance(value, list):
        return [_with_other_ids(dossier, item) for item in value]
    if isinstance(value, int) and str(value) in ids:
        return value - 1
    if isinstance(value, str):
        for one in ids:
            value = value.replace(one, f"{one[:-1]}{(int(one[-1]) + 1) % 10}")
    return value


def _with_one_more(dossier: Dossier, value: Any) -> bool:
    """Whether there was a list of rows with ids; each holds one more row now, of another order."""
    longer = False
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in list(items):
        longer = _with_one_more(dossier, item) or longer
    if isinstance(value, list) and value and isinstance(value[0], dict):
        other = _with_other_ids(dossier, value[0])
        if other != value[0]:
            value.append(other)
            longer = True
    return longer


def _contradicted(dossier: Dossier, body: Any) -> list[Any]:
    """The answer with a copy of each row of each list, whose state reads another word."""
    states = [state for words in dossier.papers.states.values() for state in words]
    found = []
    for state in states:
        made = copy.deepcopy(body)
        if _repeat_rows(made, states, state):
            found.append(made)
    return found


def _repeat_rows(value: Any, states: list[str], state: str) -> bool:
    """Whether there was a row with a state to repeat with that one instead."""
    repeated = False
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in list(items):
        repeated = _repeat_rows(item, states, state) or repeated
        if isinstance(value, list) and isinstance(item, dict):
            other = {name: state if text in states else text for name, text in item.items()}
            if other != item:
                value.append(other)
                repeated = True
    return repeated
