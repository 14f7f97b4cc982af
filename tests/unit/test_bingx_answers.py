"""What BingX's answers say: about the whole call, about each order, and whatever comes in instead of an answer."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.bingx.codes import ROWS
from cancelq_worker.venues.port import ENDED, Answer, Reply, Stage, Target, Word
from tests.unit.bingx_account import (
    ORDER_ID,
    OTHER_ID,
    PAIR,
    ROUNDED_ID,
    ROUTES,
    answer,
    decode,
    encode,
    raw,
    row,
    target,
)

ALL_KINDS = "order,tpsl,stop"
TWO = (target(ORDER_ID), target(OTHER_ID))
LOOKS = [name for name, route in ROUTES.items() if route.stage is Stage.LOOK]
SWEEPS = ["cancel-open", "sweep-cancel", "sweep-one", "sweep-list"]
CODES = {code for listed in ROWS for code in listed.codes.split()}


# -- what an answer says: the whole call ---------------------------------------------------------------------

UNREADABLE = {
    "empty": b"",
    "html": b"<html><body>502 Bad Gateway</body></html>",
    "half": b'{"code":0,"msg":"succ',
    "list": b'[{"code":0}]',
    "null": b"null",
    "number": b"0",
    "object without code": b'{"msg":"","data":{"orderId":1735964079647111281,"status":"CANCELED"}}',
    "empty object": b"{}",
    "not UTF-8": b'{"code":0,"msg":"\xff\xfe"}',
    "deep": b'{"code":' * 2000 + b"}" * 2000,
    "two documents": b'{"code":0}{"code":0}',
    "no data": b'{"code":0,"msg":""}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("route", ["cancel", "cancel-orders", "query", "open", "history-one", "open-first"])
def test_what_cannot_be_read_is_unclear(route: str, body: bytes) -> None:
    for status in (200, 201, 204, 302, 400, 404, 408, 500, 502, 504):
        (reply,) = decode(route, raw(body, status), target(ORDER_ID))
        assert reply.word is Word.UNCLEAR, status


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 599])
def test_a_server_error_is_unclear_whatever_it_says(status: int) -> None:
    """It may come from a gateway in front of a venue that did execute."""
    for code in (0, 12345, *sorted(CODES)):
        for text in ("", "order not exist", "rate limited"):
            (reply,) = decode("cancel", answer(row(), code=code, msg=text, status=status), target(ORDER_ID))
            assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize("status", [201, 202, 204, 301, 302, 400, 404])
def test_success_under_another_status_is_not_believed(status: int) -> None:
    (reply,) = decode("cancel", answer(row(), status=status), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize("code", [100404, 100400, 100421])
def test_no_such_order_for_many_orders_is_unclear_for_each(code: int) -> None:
    said = answer(code=code, msg="cancel fail, order not exist, FILLED or CANCELLED already")
    assert [r.word for r in decode("cancel-orders", said, *TWO)] == [Word.UNCLEAR, Word.UNCLEAR]
    assert [r.word for r in decode("cancel-orders", said, TWO[0])] == [Word.GONE]


@pytest.mark.parametrize(
    ("text", "notes"),
    [
        ("the order is FILLED or CANCELLED already before the cancel", {"known": 1}),
        ("the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id", {}),
        ("order not exist", {}),
    ],
)
def test_that_there_was_such_an_order_is_noted_where_the_text_leaves_no_doubt(text: str, notes: dict[str, int]) -> None:
    (reply,) = decode("cancel", answer(code=100404, msg=text), target(ORDER_ID))
    assert (reply.word, reply.notes) == (Word.GONE, notes)


@pytest.mark.parametrize("code", [80018, 109422])
def test_a_fill_told_of_a_whole_batch_is_noted_of_none_of_its_orders(code: int) -> None:
    said = answer(code=code, msg="order is already filled")
    assert [(r.word, r.notes) for r in decode("cancel-orders", said, *TWO)] == [(Word.UNCLEAR, {})] * 2
    assert [(r.word, r.notes) for r in decode("cancel-orders", said, TWO[0])] == [(Word.GONE, {"known": 1})]


@pytest.mark.parametrize(
    "text", ["Invalid parameters", "Error:Field validation for 'OrderIDs' failed on the 'max' tag"]
)
def test_a_batch_refused_as_a_whole_is_sent_in_halves(text: str) -> None:
    """One entry may have spoilt it, or there are too many: the others must not be rejected with it."""
    said = answer(code=100400, msg=text)
    assert [r.word for r in decode("cancel-orders", said, *TWO)] == [Word.SPLIT, Word.SPLIT]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("Invalid parameters, err:Key: 'R.Symbol' Error:Field validation for 'Symbol' failed", "symbol"),
        ("Invalid parameters, err:orderId: mismatch type with value", "order_id"),
        ("Invalid parameters, err:clientOrderID: mismatch", "client_order_id"),
        ("Invalid parameters, err:cancelRestrictions", "only_if"),
        ("Invalid parameters", "refused"),
    ],
)
def test_a_refused_parameter_names_the_field_of_the_intent(text: str, field: str) -> None:
    (reply,) = decode("cancel", answer(code=100400, msg=text), target(ORDER_ID))
    assert reply.word is Word.FAILED
    assert reply.text.startswith(field)
    assert text in reply.text


def test_a_refused_key_tells_what_to_do() -> None:
    (reply,) = decode("cancel", answer(code=100413, msg="Incorrect apiKey"), target(ORDER_ID))
    assert reply.word is Word.ACCOUNT
    assert "API_KEY" in reply.text


# -- what an answer says: single cancels ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (row(status="CANCELED"), Word.CANCELLED),
        (row(status="CANCELLED"), Word.CANCELLED),
        (row(status="canceled"), Word.CANCELLED),
        (row(status="FILLED", executedQty="1"), Word.FILLED),
        (row(status="NEW"), Word.ACKNOWLEDGED),
        (row(status="PENDING"), Word.ACKNOWLEDGED),
        (row(status="PARTIALLY_FILLED"), Word.ACKNOWLEDGED),
        (row(status="FAILED"), Word.UNCLEAR),
        (row(status="EXPIRED"), Word.UNCLEAR),
        (row(status="CANCELING"), Word.UNCLEAR),
        (row(status=""), Word.UNCLEAR),
        ({**row(), "status": None}, Word.UNCLEAR),
        ({**row(), "status": True}, Word.UNCLEAR),
        (row(symbol=None), Word.CANCELLED),
        (row(type=None), Word.CANCELLED),
        (row(status="FILLED", type="TRIGGER_LIMIT", executedQty="0"), Word.TRIGGERED),
        (row(status="FILLED", type="TAKE_STOP_MARKET", executedQty="0.5"), Word.FILLED),
        (row(status="FILLED", type="TAKE_STOP_MARKET", executedQty=None), Word.UNCLEAR),
        (row(status="FILLED", type="TRIGGER_LIMIT", executedQty="much"), Word.UNCLEAR),
        (row(OTHER_ID), Word.UNCLEAR),
        (row(ROUNDED_ID), Word.UNCLEAR),
        ({**row(), "orderId": float(ORDER_ID)}, Word.UNCLEAR),
        ({**row(), "orderId": ORDER_ID}, Word.CANCELLED),
        ({**row(), "orderId": f"{ORDER_ID}.0"}, Word.UNCLEAR),
        ({**row(), "orderId": True}, Word.UNCLEAR),
        (row(symbol="ETH-USDT"), Word.UNCLEAR),
        ([row()], Word.UNCLEAR),
        ({"order": row()}, Word.UNCLEAR),
        ("CANCELED", Word.UNCLEAR),
        ({}, Word.UNCLEAR),
    ],
)
def test_the_order_in_the_answer_is_the_venues_word(said: Any, meant: Word) -> None:
    (reply,) = decode("cancel", answer(said), target(ORDER_ID))
    assert reply.word is meant, reply
    if meant in ENDED:
        assert reply.order_id == ORDER_ID


@pytest.mark.parametrize("name", ["clientOrderID", "clientOrderId", "origClientOrderId"])
def test_an_answer_by_client_id_must_name_it(name: str) -> None:
    said = {**row(clientOrderID=None), name: "mine_1"}
    (reply,) = decode("cancel", answer(said), target(client_order_id="mine_1"))
    assert (reply.word, reply.order_id, reply.client_order_id) == (Word.CANCELLED, ORDER_ID, "mine_1")
    for other in ("mine_2", "MINE_1", "", "mine_1 "):
        (reply,) = decode("cancel", answer(said), target(client_order_id=other or "x"))
        assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize(
    ("executed", "told"),
    [
        ("0", ""), ("0.000", ""), ("0.5", "0.5"), ("1", "1"), (0, ""), (2, "2"), (0.25, "0.25"), (1e-7, "0.0000001"),
        ("", ""), (None, ""), (True, ""), ("-1", ""), ("1e3", ""), ("NaN", ""), ([1], ""), ("9" * 40, ""), (1e300, ""),
    ],
)  # fmt: skip
def test_a_partly_filled_order_that_was_cancelled_tells_how_much(executed: Any, told: str) -> None:
    said = {**row(), "executedQty": executed}
    (reply,) = decode("cancel", answer(said), target(ORDER_ID))
    assert (reply.word, reply.filled) == (Word.CANCELLED, told)


@pytest.mark.parametrize("order_id", ["9007199254740993", "1735964079647111281", "9223372036854775807", "1"])
def test_ids_that_no_float_can_hold_stay_what_they_are(order_id: str) -> None:
    (reply,) = decode("cancel", answer(row(order_id)), target(order_id))
    assert (reply.word, reply.order_id) == (Word.CANCELLED, order_id)
    neighbour = str(int(order_id) + 1)
    assert decode("cancel", answer(row(neighbour)), target(order_id))[0].word is Word.UNCLEAR


def test_a_sweeps_cancel_is_never_more_than_acknowledged() -> None:
    sweep = target(scope="symbol", notes={"sweep": {"todo": [{"id": ORDER_ID, "symbol": PAIR}]}})
    for route in ("cancel-open", "sweep-cancel", "sweep-one"):
        shapes: list[dict[str, Any]] = [row(), {"orders": [row()]}, {"orders": []}]
        for data in shapes:
            assert decode(route, answer(data), sweep)[0].word is Word.ACKNOWLEDGED
        assert decode(route, answer([]), sweep)[0].word is Word.UNCLEAR


# -- what an answer says: batches ----------------------------------------------------------------------------


def batch(orders: Any = (), fails: Any = ()) -> Answer:
    return answer({"orders": orders, "fails": fails})


def fail(order_id: str, text: str = "can not find order for orderId") -> dict[str, str]:
    return {"orderId": order_id, "error": text}


DONE, AGAIN = row(), row(OTHER_ID)
BATCHES = {
    "both done": (batch([DONE, AGAIN]), (Word.CANCELLED, Word.CANCELLED)),
    "in another order": (batch([AGAIN, DONE]), (Word.CANCELLED, Word.CANCELLED)),
    "one acknowledged": (batch([DONE, row(OTHER_ID, "PENDING")]), (Word.CANCELLED, Word.ACKNOWLEDGED)),
    "one filled": (batch([DONE, row(OTHER_ID, "FILLED")]), (Word.CANCELLED, Word.FILLED)),
    "one unknown": (batch([DONE], [fail(OTHER_ID)]), (Word.CANCELLED, Word.GONE)),
    "one dead": (batch([DONE], [fail(OTHER_ID, "order status :FILLED,can not")]), (Word.CANCELLED, Word.GONE)),
    "one of whom nothing is known": (batch([DONE], [fail(OTHER_ID, "busy")]), (Word.CANCELLED, Word.UNCLEAR)),
    "one missing": (batch([DONE]), (Word.CANCELLED, Word.UNCLEAR)),
    "both missing": (batch(), (Word.UNCLEAR, Word.UNCLEAR)),
    "in both lists": (batch([DONE, AGAIN], [fail(ORDER_ID)]), (Word.UNCLEAR, Word.CANCELLED)),
    "twice": (batch([DONE, DONE, AGAIN]), (Word.UNCLEAR, Word.CANCELLED)),
    "failed twice": (batch([AGAIN], [fail(ORDER_ID), fail(ORDER_ID)]), (Word.UNCLEAR, Word.CANCELLED)),
    "no lists": (answer({}), (Word.UNCLEAR, Word.UNCLEAR)),
    "lists that are null": (batch(None, None), (Word.UNCLEAR, Word.UNCLEAR)),
    "lists that are none": (batch("x", DONE), (Word.UNCLEAR, Word.UNCLEAR)),
    "rows that are none": (batch([None, ORDER_ID, [DONE]], [1]), (Word.UNCLEAR, Word.UNCLEAR)),
    "data of another shape": (answer([DONE, AGAIN]), (Word.UNCLEAR, Word.UNCLEAR)),
    "ids nobody asked for": (batch([row("1")], [fail("2")]), (Word.UNCLEAR, Word.UNCLEAR)),
    "one nobody asked for": (batch([DONE, row("1")]), (Word.UNCLEAR, Word.UNCLEAR)),
    "one that failed and nobody asked for": (batch([DONE, AGAIN], [fail("2")]), (Word.UNCLEAR, Word.UNCLEAR)),
    "rounded ids": (batch([row(ROUNDED_ID)]), (Word.UNCLEAR, Word.UNCLEAR)),
    "another pair": (batch([row(symbol="ETH-USDT"), AGAIN]), (Word.UNCLEAR, Word.CANCELLED)),
}


@pytest.mark.parametrize(("said", "words"), BATCHES.values(), ids=BATCHES)
def test_a_batch_is_read_order_by_order(said: Answer, words: tuple[Word, Word]) -> None:
    for route in ("cancel-orders", "cancel-orders-seen"):
        assert tuple(r.word for r in decode(route, said, *TWO)) == words


def test_a_batch_by_client_ids_is_read_by_client_ids() -> None:
    said = batch(
        [row(clientOrderID="a1"), row(OTHER_ID, clientOrderID="a2")],
        [fail("a3"), fail("a4", "order status :CANCELED")],
    )
    targets = [target(client_order_id=f"a{n}") for n in range(1, 6)]
    replies = decode("cancel-orders", said, *targets)
    assert [r.word for r in replies] == [Word.CANCELLED, Word.CANCELLED, Word.GONE, Word.GONE, Word.UNCLEAR]
    assert [r.order_id for r in replies[:2]] == [ORDER_ID, OTHER_ID]


def test_a_row_with_anothers_client_id_is_not_about_an_order_that_is_named_by_its_own() -> None:
    """Its order id was only learnt, and rows that stand under wrong ids may hit it."""
    mine = target(client_order_id="mine_1", notes={"oid": ORDER_ID, "cid": "mine_1"})
    for told, word in (("mine_1", Word.CANCELLED), ("", Word.CANCELLED), ("theirs", Word.UNCLEAR)):
        said = row(clientOrderID=told)
        assert decode("cancel", answer(said), mine)[0].word is word
        assert decode("cancel-orders", batch([said]), mine)[0].word is word
    given = target(ORDER_ID, "mine_1")
    assert decode("cancel", answer(row(clientOrderID="theirs")), given)[0].word is Word.CANCELLED, "order_id counts"


def test_a_batch_of_client_ids_that_tells_another_says_nothing() -> None:
    targets = [target(client_order_id="a1"), target(client_order_id="a2")]
    said = batch([row(clientOrderID="a1"), row(OTHER_ID, clientOrderID="a3")])
    assert [r.word for r in decode("cancel-orders", said, *targets)] == [Word.UNCLEAR] * 2
    silent = batch([row(clientOrderID="a1"), row(OTHER_ID)])
    assert [r.word for r in decode("cancel-orders", silent, *targets)] == [Word.CANCELLED, Word.UNCLEAR]


def test_a_state_in_a_failed_item_shows_that_the_order_was_known() -> None:
    said = batch([], [fail(ORDER_ID, "the  orderId:1 order status :CANCELED,can not delete"), fail(OTHER_ID)])
    dead, unknown = decode("cancel-orders", said, *TWO)
    assert (dead.notes, dead.venue_state) == ({"known": 1}, "CANCELED")
    assert (unknown.notes, unknown.venue_state) == ({}, "")


# -- whatever comes in ---------------------------------------------------------------------------------------

SCRAP: st.SearchStrategy[Any] = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=8)
)
STATES = st.sampled_from(["CANCELED", "CANCELLED", "FILLED", "PENDING", "NEW", "FAILED", "EXPIRED", "", "???", None, 3])
ROW = st.fixed_dictionaries(
    {},
    optional={
        "symbol": st.one_of(st.sampled_from([PAIR, PAIR, "ETH-USDT"]), SCRAP),
        "orderId": st.one_of(
            st.sampled_from([int(ORDER_ID), ORDER_ID, OTHER_ID, int(OTHER_ID), float(ORDER_ID), 10**30]), SCRAP
        ),
        "clientOrderID": st.one_of(st.sampled_from(["c1", "", None]), SCRAP),
        "status": STATES,
        "type": st.one_of(st.sampled_from(["LIMIT", "TRIGGER_LIMIT", "TAKE_STOP_MARKET"]), SCRAP),
        "executedQty": st.one_of(st.sampled_from(["0", "0.5", 0.5, 1]), SCRAP),
        "error": st.one_of(st.sampled_from(["order status :FILLED", "can not find order"]), SCRAP),
        "time": st.one_of(st.just(1_700_000_000_000), SCRAP),
    },
)
LISTS = st.one_of(st.lists(st.one_of(ROW, SCRAP), max_size=4), SCRAP)
DATA = st.one_of(ROW, LISTS, st.fixed_dictionaries({}, optional={"orders": LISTS, "fails": LISTS}), SCRAP)
CODE = st.one_of(st.just(0), st.sampled_from(sorted(CODES)), SCRAP)
TEXT = st.sampled_from(["", "order not exist", "rate limited", "timestamp", "after 1735964079647", "x" * 5000])
STATUS = st.sampled_from([200, 200, 200, 201, 400, 401, 403, 404, 418, 429, 500, 504])
DOCUMENTS = st.builds(
    lambda data, code, text, status: answer(data, code=code, msg=text, status=status), DATA, CODE, TEXT, STATUS
)
BYTES = st.builds(raw, st.binary(max_size=40), STATUS)

ORDERS = st.sampled_from(
    [
        (target(ORDER_ID),),
        (target(client_order_id="c1"),),
        (target(ORDER_ID, "c1", only_if="NEW"),),
        (target(ORDER_ID, scope="tpsl", notes={"walk": {"by": "i", "at": 7}, "bad": {"open": 2}}),),
        TWO,
        (target(ORDER_ID), target(OTHER_ID, notes={"n": 3, "abs": {"open": 1}})),
    ]
)
SWEPT = st.sampled_from(
    [
        (target(scope="symbol"),),
        (target(scope="account", symbol=None, kinds=ALL_KINDS),),
        (target(scope="account", symbol=None, client_prefix="c", age_band_ms=(1, 2)),),
        (target(scope="symbol", notes={"sweep": {"todo": [{"id": ORDER_ID, "symbol": PAIR}], "open": 3}}),),
    ]
)


def _fits(call: tuple[str, tuple[Target, ...]]) -> bool:
    route, targets = call
    try:
        encode(route, *targets)
    except ValueError:
        return False
    return True


CALLS = st.one_of(
    st.tuples(st.sampled_from([n for n in ROUTES if n not in SWEEPS]), ORDERS).filter(_fits),
    st.tuples(st.sampled_from(SWEEPS), SWEPT),
)


@settings(max_examples=600)
@given(CALLS, st.one_of(DOCUMENTS, BYTES))
def test_any_answer_is_read_and_what_it_leaves_behind_is_bounded(
    call: tuple[str, tuple[Target, ...]], said: Answer
) -> None:
    """Codes, ids and texts of a venue are kept in state lines and events: nothing endless or unprintable may be."""
    route, targets = call
    replies = decode(route, said, *targets)
    assert len(replies) == len(targets)
    for reply in replies:
        _check_bounded(reply)


def _check_bounded(reply: Reply) -> None:
    assert isinstance(reply.word, Word)
    assert reply.retry_us >= 0
    assert 0 <= reply.retry_at_ms < 2 * 10**12
    assert len(orjson.dumps(reply.notes)) < 1000
    assert re.fullmatch(r"[A-Za-z0-9._-]{0,16}", reply.code)
    assert re.fullmatch(r"[A-Za-z0-9._-]{0,16}", reply.error)
    assert len(reply.text) <= 420
    assert re.fullmatch(r"[A-Za-z0-9_-]{0,40}", reply.venue_state)
    assert re.fullmatch(r"[0-9]{0,32}", reply.order_id, re.ASCII)
    assert re.fullmatch(r"[!-+\--~]{0,64}", reply.client_order_id)
    assert reply.filled == "" or re.fullmatch(r"[0-9]{1,30}(\.[0-9]{1,30})?", reply.filled, re.ASCII)


UNKNOWN_CODES = st.one_of(st.text(max_size=8), st.integers(), st.none(), st.booleans(), st.floats(allow_nan=False))
UNKNOWN = st.one_of(
    st.builds(
        lambda data, code, text, status: answer(data, code=code, msg=text, status=status),
        DATA,
        UNKNOWN_CODES.filter(lambda code: str(code) not in CODES | {"0"}),
        TEXT,
        STATUS,
    ),
    BYTES,
)


@settings(max_examples=300)
@given(CALLS, UNKNOWN)
def test_an_unknown_answer_is_never_definite(call: tuple[str, tuple[Target, ...]], said: Answer) -> None:
    route, targets = call
    of_status = {401: Word.ACCOUNT, 403: Word.REFUSED, 418: Word.REFUSED, 429: Word.REFUSED}
    for reply in decode(route, said, *targets):
        assert reply.word is of_status.get(said.status, Word.UNCLEAR)


@settings(max_examples=500)
@given(CALLS, DATA)
def test_no_order_ends_by_an_answer_that_does_not_name_it(call: tuple[str, tuple[Target, ...]], data: Any) -> None:
    route, targets = call
    told = {str(value) for value in _values(data)}
    for one, reply in zip(targets, decode(route, answer(data), *targets), strict=True):
        named = one.order_id if one.order_id else one.client_order_id
        if named not in told or route in SWEEPS:
            assert reply.word not in ENDED | {Word.OPEN, Word.FAILED}
        if reply.word in ENDED:
            assert reply.venue_state


def _values(data: Any) -> list[Any]:
    if isinstance(data, dict):
        return [v for value in data.values() for v in _values(value)]
    if isinstance(data, list):
        return [v for value in data for v in _values(value)]
    return [data]


@settings(max_examples=300)
@given(CALLS, DOCUMENTS)
def test_each_stage_says_its_own_words(call: tuple[str, tuple[Target, ...]], said: Answer) -> None:
    route, targets = call
    looked = {Word.OPEN, Word.ABSENT, Word.UNREAD, Word.LISTED}
    sending = {Word.ACKNOWLEDGED, Word.GONE, Word.AGAIN, Word.DOUBTED, Word.SPLIT}
    for reply in decode(route, said, *targets):
        assert reply.word not in (sending if route in LOOKS else looked)
        if route in LOOKS:
            assert reply.place
