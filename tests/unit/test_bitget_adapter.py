"""Bitget's calls: which intents fit, what is sent for them, and what an answer says about each."""

import re
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.bitget.codes import CODES
from cancelq_worker.venues.port import ENDED, Answer, Plan, Reply, Stage, Target, Unfit, Word
from tests.unit.bitget_account import (
    BITGET,
    ORDER_ID,
    OTHER_ID,
    ROUTES,
    account,
    answer,
    decode,
    encode,
    raw,
    target,
)

BATCH_MOST = 50
TWO = (target(ORDER_ID), target(OTHER_ID))
CANCELS = [name for name, route in ROUTES.items() if route.stage is Stage.CANCEL]
LOOKS = [name for name, route in ROUTES.items() if route.stage is Stage.LOOK]


# -- admission -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "plan"),
    [
        (target(ORDER_ID), ("by-id", "any", Stage.CANCEL, (f"order:i:{ORDER_ID}",))),
        (target(client_order_id="c1"), ("by-client-id", "named:BTCUSDT", Stage.CANCEL, ("order:c:BTCUSDT:c1",))),
        (
            target(ORDER_ID, "c1"),
            ("by-id", "any", Stage.CANCEL, (f"order:i:{ORDER_ID}",)),
        ),
        (
            target(ORDER_ID, scope="tpsl", symbol=None),
            ("tpsl", "tpsl-history", Stage.CANCEL, (f"tpsl:i:{ORDER_ID}",)),
        ),
        (
            target(ORDER_ID, scope="stop", symbol=None),
            ("stop", "stop-history", Stage.CANCEL, (f"stop:i:{ORDER_ID}",)),
        ),
        (target(scope="symbol"), ("symbol", "sweep-order", Stage.CANCEL, ())),
        (target(scope="symbol", kinds="tpsl"), ("sweep-tpsl", "sweep-tpsl", Stage.LOOK, ())),
        (target(scope="symbol", kinds="order,stop"), ("symbol", "sweep-stop", Stage.CANCEL, ())),
        (target(scope="symbol", older_than_ms="1700000000000"), ("sweep-order", "sweep-order", Stage.LOOK, ())),
        (target(scope="symbol", client_prefix="mm-"), ("sweep-order", "sweep-order", Stage.LOOK, ())),
        (target(scope="account", symbol=None), ("sweep-order", "sweep-order", Stage.LOOK, ())),
    ],
)
def test_an_intent_finds_its_class(intent: Target, plan: tuple[str, str, Stage, tuple[str, ...]]) -> None:
    made = BITGET.admit(intent.fields)
    assert isinstance(made, Plan)
    assert (made.cancel_class, made.look_class, made.start, made.orders) == plan


@pytest.mark.parametrize(
    ("intent", "field", "names"),
    [
        (target(ORDER_ID, symbol="BTC-USDT"), "symbol", "BTCUSDT"),
        (target(ORDER_ID, symbol="btc_usdt"), "symbol", "BTCUSDT"),
        (target(ORDER_ID, symbol="btcusdt"), "symbol", "BTCUSDT"),
        (target(ORDER_ID, symbol="BtcUsdt"), "symbol", "BTCUSDT"),
        (target(scope="symbol", symbol="eth-usdt"), "symbol", "ETHUSDT"),
        (target(ORDER_ID, scope="tpsl", symbol="BTC-USDT"), "symbol", "BTCUSDT"),
        (target("my-own-7"), "order_id", "client_order_id"),
        (target(client_order_id="c1", scope="tpsl"), "order_id", "order_id"),
        (target(ORDER_ID, only_if="NEW"), "only_if", "BingX"),
    ],
)
def test_what_cannot_work_is_refused_with_its_remedy(intent: Target, field: str, names: str) -> None:
    unfit = BITGET.admit(intent.fields)
    assert isinstance(unfit, Unfit)
    assert unfit.field == field
    assert unfit.detail.startswith(f"{field}: ")
    assert names in unfit.detail


def test_every_class_an_intent_may_wait_in_is_served_by_a_route() -> None:
    """A lone order must have a route in both stages; one that needs company would wait for ever."""
    intents = [
        target(ORDER_ID),
        target(client_order_id="c1"),
        target(ORDER_ID, scope="tpsl"),
        target(ORDER_ID, scope="stop"),
        target(client_order_id="c1", scope="stop"),
        *(target(scope="symbol", kinds=kinds) for kinds in ("order", "tpsl", "stop", "order,tpsl,stop")),
    ]
    for intent in intents:
        plan = BITGET.admit(intent.fields)
        assert isinstance(plan, Plan)
        for stage, waits in ((Stage.CANCEL, plan.cancel_class), (Stage.LOOK, plan.look_class)):
            kind = waits.partition(":")[0]
            assert any(r.stage is stage and kind in r.kinds and r.least == 1 for r in BITGET.routes), waits


def test_each_route_has_its_bucket_and_each_bucket_the_documented_limit() -> None:
    limits = {b.name: (b.units, b.window_us) for b in BITGET.buckets}
    assert limits == {
        "cancel-order": (10, 1_000_000),
        "batch-cancel-order": (10, 1_000_000),
        "cancel-symbol-order": (5, 1_000_000),
        "cancel-plan-order": (20, 1_000_000),
        "orderInfo": (20, 1_000_000),
        "unfilled-orders": (20, 1_000_000),
        "history-orders": (20, 1_000_000),
        "current-plan-order": (20, 1_000_000),
        "history-plan-order": (20, 1_000_000),
    }
    address = {b.name: (b.units, b.window_us) for b in BITGET.address_buckets}
    assert address == {
        "bitget-ip": (6000, 60_000_000),
        "bitget-time": (20, 1_000_000),
        # Four fifths of 300 and 100: the desk's own programs connect, too.
        "bitget-connects": (240, 300_000_000),
        "bitget-sockets": (80, 0),
    }
    for route in BITGET.routes:
        assert route.bucket in limits
        assert route.per_order == 0, "Bitget counts calls, not the orders in them"
        assert route.address == ("bitget-ip",)


@pytest.mark.parametrize("route", ROUTES)
def test_a_call_is_counted_in_the_bucket_of_the_endpoint_it_calls(route: str) -> None:
    one = target(ORDER_ID, notes={"sweep": {"todo": [{"id": ORDER_ID, "symbol": "BTCUSDT"}]}})
    scope = {"cancel-plan-order": "stop", "cancel-symbol-order": "symbol"}.get(route, "order")
    if route.startswith("sweep") or scope == "symbol":
        one = target(scope="symbol", notes=one.notes)
    request = encode(route, target(ORDER_ID, scope=scope) if scope == "stop" else one)
    assert request.path == f"/api/v2/spot/trade/{ROUTES[route].bucket}"


def test_two_cancels_of_an_order_are_kept_apart_by_more_than_the_venue_wants() -> None:
    """45129: the same order cancelled more than once within a second."""
    assert BITGET.timing.gap_us >= 1_200_000


# -- what is sent --------------------------------------------------------------------------------------------


def test_exactly_one_id_is_sent_and_the_order_id_wins() -> None:
    body = orjson.loads(encode("cancel-order", target(ORDER_ID, "mine-1")).body)
    assert body == {"symbol": "BTCUSDT", "orderId": ORDER_ID}


def test_an_order_id_that_was_learnt_is_used() -> None:
    learnt = target(client_order_id="mine-1", notes={"oid": ORDER_ID})
    assert orjson.loads(encode("cancel-order", learnt).body) == {"symbol": "BTCUSDT", "orderId": ORDER_ID}
    assert BITGET.cancel_class(learnt) == "by-id"
    assert set(BITGET.order_keys(learnt)) == {f"order:i:{ORDER_ID}", "order:c:BTCUSDT:mine-1"}


def test_tpsl_and_plan_orders_found_by_a_sweep_go_to_their_own_endpoints() -> None:
    todo = [{"id": ORDER_ID, "symbol": "BTCUSDT"}, {"id": OTHER_ID, "symbol": "ETHUSDT"}]
    sweep = target(scope="account", symbol=None, kinds="tpsl,stop", notes={"sweep": {"todo": todo}})
    assert orjson.loads(encode("cancel-order", sweep).body) == {"tpslType": "tpsl", "orderId": ORDER_ID}
    assert orjson.loads(encode("cancel-plan-order", sweep).body) == {"orderId": ORDER_ID}


def test_a_sweep_cancels_by_order_id_at_most_a_batch() -> None:
    todo = [{"id": str(1000 + n), "symbol": "BTCUSDT"} for n in range(70)]
    sweep = target(scope="symbol", notes={"sweep": {"todo": todo}})
    body = orjson.loads(encode("sweep-cancel", sweep).body)
    assert [item["orderId"] for item in body["orderList"]] == [row["id"] for row in todo[:BATCH_MOST]]
    assert BITGET.sweep_named("sweep-cancel", sweep) == BATCH_MOST
    assert BITGET.sweep_named("cancel-order", sweep) == BITGET.sweep_named("cancel-plan-order", sweep) == 1


IDS = st.from_regex(r"[1-9][0-9]{0,18}", fullmatch=True)
CLIENT_IDS = st.from_regex(r"[0-9A-Za-z+_#-]{1,20}", fullmatch=True)
SYMBOLS = st.sampled_from(["BTCUSDT", "ETHUSDT", "SOLUSDC"])
ANY_SYMBOL = st.one_of(SYMBOLS, st.sampled_from(["", None]))
TODO = st.lists(st.fixed_dictionaries({"id": IDS, "symbol": st.one_of(SYMBOLS, st.just(""))}), max_size=3)


@st.composite
def any_targets(draw: st.DrawFn) -> list[Target]:
    """As many orders as somebody might ever put into one call, well formed or not."""
    scope = draw(st.sampled_from(["order", "tpsl", "stop", "symbol", "account"]))
    if scope in ("symbol", "account"):
        notes = {"sweep": {"todo": draw(TODO)}} if draw(st.booleans()) else {}
        return [target(scope=scope, symbol=draw(ANY_SYMBOL), notes=notes)]
    kinds = draw(st.sampled_from([(True,), (False,), (True, False)]))
    count = draw(st.sampled_from([0, 1, 2, 3, 49, 50, 51, 60]))
    # Many orders are told apart by their number: drawing each would be slow, and adds nothing.
    symbols = draw(st.lists(ANY_SYMBOL, min_size=3, max_size=3))
    if draw(st.booleans()):
        symbols = [draw(SYMBOLS)] * 3
    start = draw(IDS)
    return [
        target(
            str(int(start) + n) if kinds[n % len(kinds)] else None,
            None if kinds[n % len(kinds)] else draw(CLIENT_IDS) if n < 3 else f"mine-{n}",
            scope=scope,
            symbol=symbols[n % 3],
        )
        for n in range(count)
    ]


@settings(max_examples=200)
@given(st.sampled_from(CANCELS), any_targets())
def test_a_cancel_names_what_it_is_about_or_is_not_made(route: str, targets: list[Target]) -> None:
    """On this venue an empty list or a missing symbol means everything. So neither can be expressed, nor a batch
    that mixes id kinds (its client ids would fail) or is larger than the venue takes."""
    try:
        request = BITGET.encode(ROUTES[route], targets)
    except ValueError:
        return
    body = orjson.loads(request.body)
    assert request.method == "POST"
    if request.path.endswith("/batch-cancel-order"):
        _check_batch(body)
    elif request.path.endswith("/cancel-symbol-order"):
        assert list(body) == ["symbol"]
        assert body["symbol"]
    else:
        ids = [body[name] for name in ("orderId", "clientOid") if name in body]
        assert len(ids) == 1
        assert ids[0]
        wants_symbol = request.path.endswith("/cancel-order") and body.get("tpslType") != "tpsl"
        assert bool(body.get("symbol")) or not wants_symbol


def _check_batch(body: dict[str, Any]) -> None:
    items = body["orderList"]
    assert 1 <= len(items) <= BATCH_MOST
    kinds = {name for item in items for name in ("orderId", "clientOid") if name in item}
    assert len(kinds) == 1, "one kind of id in a batch"
    (kind,) = kinds
    assert all(item[kind] for item in items)
    if body["batchMode"] == "single":
        assert body["symbol"]
        assert all("symbol" not in item for item in items)
    else:
        assert body["batchMode"] == "multiple"
        assert "symbol" not in body
        assert all(item["symbol"] for item in items)


@pytest.mark.parametrize("route", ROUTES)
def test_no_call_is_made_for_no_order(route: str) -> None:
    with pytest.raises(ValueError, match="name"):
        encode(route)


@pytest.mark.parametrize("route", ["cancel-order", "cancel-symbol-order", "cancel-plan-order"])
def test_a_call_for_one_order_does_not_swallow_a_second(route: str) -> None:
    scope = {"cancel-plan-order": "stop", "cancel-symbol-order": "symbol"}.get(route, "order")
    ids = (None, None) if scope == "symbol" else (ORDER_ID, OTHER_ID)
    with pytest.raises(ValueError):  # noqa: PT011 - the type is the promise, the words are for a person
        encode(route, *(target(i, scope=scope) for i in ids))


def test_more_orders_than_the_venue_takes_are_not_sent() -> None:
    with pytest.raises(ValueError, match="50"):
        encode("batch-cancel-order", *(target(str(1000 + n)) for n in range(51)))


def test_id_kinds_are_not_mixed() -> None:
    with pytest.raises(ValueError, match="mix"):
        encode("batch-cancel-order", target(ORDER_ID), target(client_order_id="mine-1"))


def test_a_sweep_that_found_nothing_cancels_nothing() -> None:
    for route in ("sweep-cancel", "cancel-order", "cancel-plan-order"):
        nothing: list[dict[str, Any]] = [{}, {"sweep": {}}, {"sweep": {"todo": []}}]
        for notes in nothing:
            with pytest.raises(ValueError, match="name"):
                encode(route, target(scope="account", symbol=None, notes=notes))


# -- what an answer says: the whole call ---------------------------------------------------------------------

UNREADABLE = {
    "empty": b"",
    "html": b"<html><body>502 Bad Gateway</body></html>",
    "half": b'{"code":"00000","msg":"succ',
    "list": b'[{"code":"00000"}]',
    "null": b"null",
    "text": b'"00000"',
    "number": b"0",
    "object without code": b'{"msg":"success","data":{"orderId":"121211212122"}}',
    "empty object": b"{}",
    "not UTF-8": b'{"code":"00000","msg":"\xff\xfe"}',
    "deep": b'{"code":' * 2000 + b"}" * 2000,
    "null code": b'{"code":null,"data":{"orderId":"121211212122"}}',
    "number for a code": b'{"code":0,"msg":"success","data":{"orderId":"121211212122"}}',
    "two documents": b'{"code":"00000"}{"code":"00000"}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("route", ["cancel-order", "batch-cancel-order", "order-info", "history"])
def test_what_cannot_be_read_is_unclear(route: str, body: bytes) -> None:
    for status in (200, 201, 204, 302, 400, 404, 408, 500, 502, 504):
        (reply,) = decode(route, raw(body, status), target(ORDER_ID))
        assert reply.word is Word.UNCLEAR, status


@pytest.mark.parametrize("status", [500, 502, 503, 504, 520, 599])
def test_a_server_error_is_unclear_whatever_it_says(status: int) -> None:
    """It may come from a gateway in front of a venue that did execute."""
    definite = []
    for code in ("00000", "12345", *sorted(CODES)):
        said = answer({"orderId": ORDER_ID, "clientOid": ""}, code=code, status=status)
        (reply,) = decode("cancel-order", said, target(ORDER_ID))
        if reply.word is not Word.UNCLEAR:
            definite.append((code, reply.word))
    assert not definite


@pytest.mark.parametrize("status", [201, 202, 204, 301, 302, 400, 401, 404, 418])
def test_success_under_another_status_is_not_believed(status: int) -> None:
    said = answer({"orderId": ORDER_ID, "clientOid": ""}, status=status)
    (reply,) = decode("cancel-order", said, target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize(
    "body", [b"", b"Too Many Requests", b"<html>", b"null", b'{"code":"429","msg":"Too Many Requests"}']
)
def test_over_the_limit_is_known_by_its_status_alone(body: bytes) -> None:
    for route in ("cancel-order", "order-info"):
        (reply,) = decode(route, raw(body, 429), target(ORDER_ID))
        assert (reply.word, reply.code, reply.http_status) == (Word.REFUSED, "429", 429)


def test_over_the_limit_is_known_by_its_code_too() -> None:
    for status in (200, 400):
        (reply,) = decode("cancel-order", answer(code="429", status=status), target(ORDER_ID))
        assert reply.word is Word.REFUSED


def test_a_forbidden_address_is_held_for_minutes() -> None:
    """The limit over all calls of an address takes five minutes to recover."""
    for body in (b"", b"<html>Forbidden</html>", b'{"code":"77777","msg":"?"}'):
        for route in ("cancel-order", "order-info", "history-page", "sweep-list-order"):
            one = target(scope="symbol") if route.startswith("sweep") else target(ORDER_ID)
            (reply,) = decode(route, raw(body, 403), one)
            assert (reply.word, reply.retry_us, reply.whole_address) == (Word.REFUSED, 300_000_000, True), route


def test_a_listed_code_keeps_its_meaning_under_403() -> None:
    for code in ("40018", "40009", "43001", "45001", "40010"):
        (reply,) = decode("cancel-order", answer(code=code, status=403), target(ORDER_ID))
        assert reply.word is CODES[code], code


def test_a_refused_key_tells_what_to_do() -> None:
    (reply,) = decode("cancel-order", answer(code="40012", status=400, msg="apikey/password is incorrect"), TWO[0])
    assert reply.word is Word.ACCOUNT
    assert "PASSPHRASE" in reply.text


def test_a_refused_parameter_names_the_field_of_the_intent() -> None:
    (reply,) = decode("cancel-order", answer(code="40034", status=400, msg="Parameter symbol does not exist"), TWO[0])
    assert reply.word is Word.FAILED
    assert reply.text.startswith("symbol: ")
    (reply,) = decode(
        "cancel-order", answer(code="40019", status=400, msg="Parameter clientOid cannot be empty"), TWO[0]
    )
    assert reply.text.startswith("client_order_id: ")


@pytest.mark.parametrize("said", [answer(code="43001", status=400), answer(code="40109", status=400)])
def test_no_such_order_for_many_orders_is_unclear_for_each(said: Answer) -> None:
    assert [r.word for r in decode("batch-cancel-order", said, *TWO)] == [Word.UNCLEAR, Word.UNCLEAR]
    assert [r.word for r in decode("batch-cancel-order", said, TWO[0])] == [Word.GONE]


@pytest.mark.parametrize("code", ["40912", "40306", "40034", "43011", "45056", "40808"])
def test_a_batch_refused_as_a_whole_is_sent_in_halves(code: str) -> None:
    """One entry may have spoilt it: the others must not be rejected with it."""
    said = answer(code=code, status=400)
    assert [r.word for r in decode("batch-cancel-order", said, *TWO)] == [Word.SPLIT, Word.SPLIT]


# -- what an answer says: single cancels ---------------------------------------------------------------------


def test_an_acknowledgement_is_never_more_than_that() -> None:
    said = answer({"orderId": ORDER_ID, "clientOid": "mine-1"})
    (reply,) = decode("cancel-order", said, target(ORDER_ID))
    assert (reply.word, reply.order_id, reply.client_order_id) == (Word.ACKNOWLEDGED, ORDER_ID, "mine-1")
    (reply,) = decode("cancel-order", said, target(client_order_id="mine-1"))
    assert (reply.word, reply.order_id) == (Word.ACKNOWLEDGED, ORDER_ID)


@pytest.mark.parametrize(
    "data",
    [
        None,
        [],
        "success",
        1,
        {},
        {"orderId": OTHER_ID},
        {"orderId": None},
        {"clientOid": ORDER_ID},
        [{"orderId": ORDER_ID}],
    ],
)
def test_an_answer_about_another_order_is_unclear(data: Any) -> None:
    (reply,) = decode("cancel-order", answer(data), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


def test_an_id_that_is_a_number_is_the_same_id() -> None:
    (reply,) = decode("cancel-order", answer({"orderId": int(ORDER_ID)}), target(ORDER_ID))
    assert (reply.word, reply.order_id) == (Word.ACKNOWLEDGED, ORDER_ID)


def test_a_plan_order_is_acknowledged_by_its_result() -> None:
    plan = target(ORDER_ID, scope="stop")
    assert decode("cancel-plan-order", answer({"result": "success"}), plan)[0].word is Word.ACKNOWLEDGED
    for data in ({"result": "failure"}, {"result": None}, {}, None, "success", {"result": True}):
        assert decode("cancel-plan-order", answer(data), plan)[0].word is Word.UNCLEAR


# -- what an answer says: batches ----------------------------------------------------------------------------


def batch(success: Any = (), failure: Any = ()) -> Answer:
    return answer({"successList": success, "failureList": failure})


def ok(order_id: str) -> dict[str, str]:
    return {"orderId": order_id, "clientOid": ""}


def bad(order_id: str, code: str | None = "43001") -> dict[str, str]:
    row = {"orderId": order_id, "clientOid": "", "errorMsg": "The order does not exist"}
    return row if code is None else {**row, "errorCode": code}


BATCHES = {
    "both taken": (batch([ok(ORDER_ID), ok(OTHER_ID)]), (Word.ACKNOWLEDGED, Word.ACKNOWLEDGED)),
    "in another order": (batch([ok(OTHER_ID), ok(ORDER_ID)]), (Word.ACKNOWLEDGED, Word.ACKNOWLEDGED)),
    "one failed": (batch([ok(ORDER_ID)], [bad(OTHER_ID)]), (Word.ACKNOWLEDGED, Word.GONE)),
    "all failed under 00000": (batch([], [bad(ORDER_ID), bad(OTHER_ID, "45056")]), (Word.GONE, Word.FAILED)),
    "one missing": (batch([ok(ORDER_ID)]), (Word.ACKNOWLEDGED, Word.UNCLEAR)),
    "both missing": (batch(), (Word.UNCLEAR, Word.UNCLEAR)),
    "no lists": (answer({}), (Word.UNCLEAR, Word.UNCLEAR)),
    "lists that are null": (batch(None, None), (Word.UNCLEAR, Word.UNCLEAR)),
    "lists that are none": (batch("x", {"orderId": ORDER_ID}), (Word.UNCLEAR, Word.UNCLEAR)),
    "rows that are none": (batch([None, ORDER_ID, [ORDER_ID]], [1]), (Word.UNCLEAR, Word.UNCLEAR)),
    "no data": (answer(None), (Word.UNCLEAR, Word.UNCLEAR)),
    "data of another shape": (answer([ok(ORDER_ID), ok(OTHER_ID)]), (Word.UNCLEAR, Word.UNCLEAR)),
    "ids nobody asked for": (batch([ok("1")], [bad("2")]), (Word.UNCLEAR, Word.UNCLEAR)),
    "one nobody asked for": (batch([ok(ORDER_ID), ok("1")]), (Word.UNCLEAR, Word.UNCLEAR)),
    "one that failed and nobody asked for": (
        batch([ok(ORDER_ID)], [bad(OTHER_ID, "45056"), bad("2")]), (Word.UNCLEAR, Word.UNCLEAR)
    ),
    "no errorCode": (batch([ok(OTHER_ID)], [bad(ORDER_ID, None)]), (Word.UNCLEAR, Word.ACKNOWLEDGED)),
    "an empty errorCode": (batch([ok(OTHER_ID)], [bad(ORDER_ID, "")]), (Word.UNCLEAR, Word.ACKNOWLEDGED)),
    "an unlisted errorCode": (batch([], [bad(ORDER_ID, "1"), bad(OTHER_ID, "00000")]), (Word.UNCLEAR, Word.UNCLEAR)),
    "taken twice": (batch([ok(ORDER_ID), ok(ORDER_ID)]), (Word.ACKNOWLEDGED, Word.UNCLEAR)),
    "a failed row without ids": (batch([ok(ORDER_ID)], [bad("")]), (Word.ACKNOWLEDGED, Word.UNCLEAR)),
    "an account code": (batch([ok(ORDER_ID)], [bad(OTHER_ID, "40009")]), (Word.ACKNOWLEDGED, Word.UNCLEAR)),
    "a split code": (batch([ok(ORDER_ID)], [bad(OTHER_ID, "40912")]), (Word.ACKNOWLEDGED, Word.UNCLEAR)),
    "a clock code": (batch([ok(ORDER_ID)], [bad(OTHER_ID, "40008")]), (Word.ACKNOWLEDGED, Word.UNCLEAR)),
    "a second too early": (batch([ok(ORDER_ID)], [bad(OTHER_ID, "45129")]), (Word.ACKNOWLEDGED, Word.AGAIN)),
    "one over the limit": (batch([ok(ORDER_ID)], [bad(OTHER_ID, "429")]), (Word.ACKNOWLEDGED, Word.REFUSED)),
}  # fmt: skip


@pytest.mark.parametrize(("said", "words"), BATCHES.values(), ids=BATCHES)
def test_a_batch_answer_speaks_for_each_order(said: Answer, words: tuple[Word, ...]) -> None:
    assert tuple(r.word for r in decode("batch-cancel-order", said, *TWO)) == words


def test_a_failed_item_is_told_in_the_venues_words() -> None:
    said = batch([ok(ORDER_ID)], [bad(OTHER_ID)])
    _, failed = decode("batch-cancel-order", said, *TWO)
    assert (failed.code, failed.text) == ("43001", "The order does not exist")


# What makes the worker look before it does anything else.
LOOKED_UP = {Word.UNCLEAR, Word.GONE, Word.ACKNOWLEDGED}


@pytest.mark.parametrize("code", ["43001", "45056", "45129", "40808", None])
def test_an_order_in_both_lists_is_looked_up(code: str | None) -> None:
    """One list says that it was taken, the other that it was not: neither is to be believed."""
    said = batch([ok(ORDER_ID)], [bad(ORDER_ID, code), bad(OTHER_ID)])
    first, second = decode("batch-cancel-order", said, *TWO)
    assert first.word in LOOKED_UP
    assert second.word is Word.GONE


def test_an_order_that_failed_in_two_ways_is_looked_up() -> None:
    for codes in (("43001", "45056"), ("45056", "43001")):
        said = batch([ok(OTHER_ID)], [bad(ORDER_ID, code) for code in codes])
        first, _ = decode("batch-cancel-order", said, *TWO)
        assert first.word in LOOKED_UP, codes


def test_a_batch_by_client_id_is_read_by_client_id() -> None:
    mine, yours = target(client_order_id="mine-1"), target(client_order_id="mine-2")
    said = batch(
        [{"orderId": ORDER_ID, "clientOid": "mine-1"}],
        [{"orderId": "", "clientOid": "mine-2", "errorMsg": "x", "errorCode": "43001"}],
    )
    first, second = decode("batch-cancel-order", said, mine, yours)
    assert (first.word, first.order_id) == (Word.ACKNOWLEDGED, ORDER_ID)
    assert second.word is Word.GONE


def test_a_client_id_is_not_taken_for_an_order_id() -> None:
    said = batch([{"orderId": "", "clientOid": ORDER_ID}], [{"orderId": "", "clientOid": OTHER_ID}])
    assert [r.word for r in decode("batch-cancel-order", said, *TWO)] == [Word.UNCLEAR, Word.UNCLEAR]


# -- what an answer says: anything at all --------------------------------------------------------------------

# Digits that are none to int(), that are no ASCII, that are too many; control characters; the wrong type.
ODD: st.SearchStrategy[Any] = st.one_of(
    st.sampled_from([None, True, 0, -1, 1.5, "", " ", "²", "٣", "-5", "1e5", "\x00\x1b[31m", [], {}, [[]]]),
    st.just("9").map(lambda digit: digit * 5000),
)
SOME_ID = st.sampled_from([ORDER_ID, OTHER_ID, int(ORDER_ID), "1", "mine-1"])
ROW = st.fixed_dictionaries(
    {},
    optional={
        "orderId": st.one_of(SOME_ID, ODD),
        "clientOid": st.one_of(SOME_ID, ODD),
        "errorCode": st.one_of(st.sampled_from(sorted(CODES)), ODD),
        "errorMsg": ODD,
        "status": st.one_of(st.sampled_from(["live", "filled", "cancelled", "executed", "reject"]), ODD),
        "baseVolume": st.one_of(st.sampled_from(["0", "0.000", "1.25"]), ODD),
        "symbol": st.one_of(st.sampled_from(["BTCUSDT", "ethusdt"]), ODD),
        "cTime": st.one_of(st.sampled_from(["1700000000000", "1700000000", 1700000000000]), ODD),
        "executeOrderId": ODD,
    },
)
ROWS = st.one_of(ODD, st.lists(st.one_of(ROW, ODD), max_size=4))
DATA = st.one_of(
    ROWS,
    ROW,
    st.fixed_dictionaries(
        {},
        optional={
            "successList": ROWS,
            "failureList": ROWS,
            "orderList": ROWS,
            "nextFlag": st.one_of(st.booleans(), ODD),
            "result": st.one_of(st.just("success"), ODD),
            "serverTime": ODD,
        },
    ),
)
CODE = st.one_of(st.just("00000"), st.sampled_from(sorted(CODES)), ODD)
STATUS = st.one_of(st.sampled_from([200, 200, 400, 403, 429, 500]), st.integers(100, 599))
DOCUMENTS = st.builds(lambda data, code, status: answer(data, code=code, status=status), DATA, CODE, STATUS)
BYTES = st.builds(raw, st.binary(max_size=60), STATUS)

SOME_TARGETS = st.sampled_from(
    [
        TWO,
        (target(ORDER_ID),),
        (target(client_order_id="mine-1"),),
        (target(client_order_id="mine-1"), target(client_order_id=ORDER_ID)),
        (target(ORDER_ID, scope="tpsl"), target(OTHER_ID, scope="tpsl")),
        (target(ORDER_ID, scope="stop"), target("1", scope="stop")),
        (target(client_order_id="mine-1", scope="stop"),),
    ]
)
SWEEPS = st.sampled_from(
    [
        (target(scope="symbol", age_band_ms=(1700000000000, 1700000000001)),),
        (target(scope="account", symbol=None, kinds="tpsl,stop", client_prefix="m"),),
        (target(scope="symbol", older_than_ms="1700000000000", notes={"sweep": {"at": "500", "open": 3}}),),
    ]
)
SWEEP_ROUTES = [name for name in ROUTES if name.startswith("sweep")] + ["cancel-symbol-order"]


def calls() -> st.SearchStrategy[tuple[str, tuple[Target, ...]]]:
    """A route with targets it may carry."""
    singles = [n for n in ROUTES if n not in SWEEP_ROUTES]
    carried = st.tuples(st.sampled_from(singles), SOME_TARGETS).map(
        lambda call: (call[0], call[1][: ROUTES[call[0]].most])
    )
    return st.one_of(carried, st.tuples(st.sampled_from(SWEEP_ROUTES), SWEEPS))


@settings(max_examples=400)
@given(calls(), st.one_of(DOCUMENTS, BYTES))
def test_any_answer_is_read_and_speaks_for_each_order(call: tuple[str, tuple[Target, ...]], said: Answer) -> None:
    route, targets = call
    replies = decode(route, said, *targets)
    assert len(replies) == len(targets)
    for reply in replies:
        assert isinstance(reply.word, Word)
        assert reply.retry_us >= 0
        orjson.dumps(reply.notes)


@settings(max_examples=200)
@given(calls(), DOCUMENTS)
def test_what_an_answer_leaves_behind_is_bounded_and_safe(call: tuple[str, tuple[Target, ...]], said: Answer) -> None:
    """Codes, ids and texts of a venue are kept in state lines and events: nothing endless or unprintable may be."""
    route, targets = call
    try:
        replies = decode(route, said, *targets)
    except ValueError:
        return  # the test above tells that
    for reply in replies:
        _check_bounded(reply)


def _check_bounded(reply: Reply) -> None:
    assert len(reply.code) <= 64
    assert len(reply.text) <= 400
    assert len(reply.venue_state) <= 64
    assert len(reply.filled) <= 64
    assert re.fullmatch(r"[0-9]{0,32}", reply.order_id, re.ASCII)
    for name in (reply.client_order_id, reply.child_order_id):
        assert re.fullmatch(r"[!-+\--~]{0,64}", name)
    assert reply.filled == "" or re.fullmatch(r"[0-9]+(\.[0-9]+)?", reply.filled, re.ASCII)


UNKNOWN_CODES = st.one_of(st.text(max_size=8), st.integers(), st.none()).filter(
    lambda code: str(code) not in CODES and str(code) != "00000"
)
UNKNOWN = st.one_of(
    st.builds(lambda data, code, status: answer(data, code=code, status=status), DATA, UNKNOWN_CODES, STATUS), BYTES
)


@settings(max_examples=250)
@given(calls(), UNKNOWN)
def test_an_unknown_answer_is_never_definite(call: tuple[str, tuple[Target, ...]], said: Answer) -> None:
    route, targets = call
    for reply in decode(route, said, *targets):
        assert reply.word in ({Word.REFUSED} if said.status in (403, 429) else {Word.UNCLEAR})


@settings(max_examples=250)
@given(calls(), DATA)
def test_no_order_ends_by_an_answer_that_does_not_name_it(call: tuple[str, tuple[Target, ...]], data: Any) -> None:
    route, targets = call
    said = answer(data)
    told = {"9" * 5000} | {str(value) for value in _values(data)}
    try:
        replies = decode(route, said, *targets)
    except ValueError:
        return  # the test above tells that
    for one, reply in zip(targets, replies, strict=True):
        if not {one.order_id, one.client_order_id} & told:
            assert reply.word not in ENDED


def _values(data: Any) -> list[Any]:
    if isinstance(data, dict):
        return [v for value in data.values() for v in _values(value)]
    if isinstance(data, list):
        return [v for value in data for v in _values(value)]
    return [data]


@settings(max_examples=150)
@given(st.sampled_from(CANCELS), DATA, STATUS, CODE)
def test_no_answer_to_a_cancel_ends_an_order(route: str, data: Any, status: int, code: Any) -> None:
    sweeping = route in SWEEP_ROUTES
    targets = (target(scope="symbol"),) if sweeping else TWO[: ROUTES[route].most]
    for reply in decode(route, answer(data, code=code, status=status), *targets):
        assert reply.word not in ENDED
        assert reply.word not in (Word.OPEN, Word.ABSENT, Word.LISTED)


# -- time and probe ------------------------------------------------------------------------------------------


def test_the_venues_time_is_read() -> None:
    assert [request.path for request in BITGET.time_requests] == ["/api/v2/public/time"]
    assert BITGET.read_time(answer({"serverTime": "1700000000123"})) == 1700000000123


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"serverTime": ""}, {"serverTime": "soon"}, {"serverTime": "1700000000"}, {"serverTime": "٣" * 13}],
)
def test_a_time_that_is_none_is_not_believed(data: Any) -> None:
    assert BITGET.read_time(answer(data)) is None
    assert BITGET.read_time(raw(b"<html>")) is None


def test_a_probe_reads_and_changes_nothing() -> None:
    request = BITGET.probe_request()
    assert (request.method, request.body) == ("GET", b"")
    assert request.query == "limit=1", "the list takes 1 to 100"
    assert BITGET.read_probe(answer([])).word is Word.OPEN
    assert BITGET.read_probe(answer(code="40009", status=400)).word is Word.ACCOUNT
    assert BITGET.read_probe(raw(b"", 502)).word is Word.UNCLEAR


def test_limits_can_be_set_for_an_account_that_has_others() -> None:
    bitget = type(account())(account()._credentials, {"cancel-order": 5, "bitget-ip": 100})
    limits = {b.name: b.units for b in bitget.buckets}
    assert (limits["cancel-order"], limits["batch-cancel-order"]) == (5, 10)
    assert bitget.address_buckets[0].units == 100


@pytest.mark.parametrize(("size", "most"), [(None, 50), (5, 5), (50, 50), (80, 50)])
def test_a_batch_names_no_more_orders_than_the_account_sets_and_the_venue_takes(size: int | None, most: int) -> None:
    bitget = type(account())(account()._credentials, batch_size=size)
    route = next(r for r in bitget.routes if r.name == "batch-cancel-order")
    targets = [target(str(1000 + n)) for n in range(most + 1)]
    assert len(orjson.loads(bitget.encode(route, targets[:most]).body)["orderList"]) == most
    with pytest.raises(ValueError, match="may name"):
        bitget.encode(route, targets)
