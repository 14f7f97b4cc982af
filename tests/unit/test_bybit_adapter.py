"""Bybit's calls: which intents fit, what is sent for them, and what an answer says about each."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from cancelq_worker.settings import Account
from cancelq_worker.venues.bybit.kind import KIND
from cancelq_worker.venues.port import Answer, Plan, Stage, Target, Unfit, Word
from tests.unit.bitget_account import target
from tests.unit.bybit_account import (
    BYBIT,
    NOW_MS,
    ORDER_ID,
    OTHER_ID,
    ROUTES,
    account,
    answer,
    batch,
    decode,
    encode,
    raw,
    row,
)

BATCH_MOST = 10
TWO = (target(ORDER_ID), target(OTHER_ID))
CANCELS = [name for name, route in ROUTES.items() if route.stage is Stage.CANCEL]
BULKS = ("symbol", "account")

# -- admission -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "plan"),
    [
        (target(ORDER_ID), ("order", "any", Stage.CANCEL, (f"order:i:BTCUSDT:{ORDER_ID}",))),
        (target(client_order_id="c1"), ("order", "realtime", Stage.CANCEL, ("order:c:BTCUSDT:c1",))),
        (target(ORDER_ID, "c1"), ("order", "any", Stage.CANCEL, (f"order:i:BTCUSDT:{ORDER_ID}",))),
        (target(ORDER_ID, scope="tpsl"), ("tpsl", "any", Stage.CANCEL, (f"tpsl:i:BTCUSDT:{ORDER_ID}",))),
        (target(client_order_id="c1", scope="stop"), ("stop", "realtime", Stage.CANCEL, ("stop:c:BTCUSDT:c1",))),
        (target(scope="symbol"), ("bulk-order", "sweep-order", Stage.CANCEL, ())),
        (target(scope="symbol", kinds="tpsl"), ("bulk-tpsl", "sweep-tpsl", Stage.CANCEL, ())),
        (target(scope="symbol", kinds="stop,tpsl"), ("bulk-stop", "sweep-stop", Stage.CANCEL, ())),
        (target(scope="symbol", kinds="stop,order"), ("bulk-order", "sweep-stop", Stage.CANCEL, ())),
        (target(scope="account", symbol=None), ("bulk-order", "sweep-order", Stage.CANCEL, ())),
        (target(scope="symbol", older_than_ms="1700000000000"), ("sweep-order", "sweep-order", Stage.LOOK, ())),
        (target(scope="account", symbol=None, client_prefix="m"), ("sweep-order", "sweep-order", Stage.LOOK, ())),
    ],
)
def test_an_intent_finds_its_class(intent: Target, plan: tuple[str, str, Stage, tuple[str, ...]]) -> None:
    made = BYBIT.admit(intent.fields)
    assert isinstance(made, Plan)
    assert (made.cancel_class, made.look_class, made.start, made.orders) == plan


@pytest.mark.parametrize(
    ("intent", "field", "names"),
    [
        (target(ORDER_ID, symbol="BTC-USDT"), "symbol", "without a separator; 'BTC-USDT' should be 'BTCUSDT'"),
        (target(ORDER_ID, symbol="btc_usdt"), "symbol", "BTCUSDT"),
        (target(ORDER_ID, symbol="btcusdt"), "symbol", "in capitals; 'btcusdt' should be 'BTCUSDT'"),
        (target(scope="symbol", symbol="eth-usdt"), "symbol", "ETHUSDT"),
        (target(ORDER_ID, symbol=None), "symbol", "BTCUSDT"),
        (target(ORDER_ID, scope="tpsl", symbol=None), "symbol", "missing"),
        (target(ORDER_ID, scope="stop", symbol=None), "symbol", "missing"),
        (target(ORDER_ID, only_if="NEW"), "only_if", "BingX"),
    ],
)
def test_what_cannot_work_is_refused_with_its_remedy(intent: Target, field: str, names: str) -> None:
    unfit = BYBIT.admit(intent.fields)
    assert isinstance(unfit, Unfit)
    assert unfit.field == field
    assert unfit.detail.startswith(f"{field}: ")
    assert names in unfit.detail


def test_which_ids_are_plausible_is_left_to_the_venue() -> None:
    for order_id in ("1", "c6f055d9-7f21-4079-913d-e6523a9cfffa", "x" * 64):
        assert isinstance(BYBIT.admit(target(order_id).fields), Plan)


@pytest.mark.parametrize("options", [{}, {"singly": True}, {"batch_size": 1}, {"batch_size": 3}])
def test_every_class_an_intent_may_wait_in_is_served_by_a_route(options: dict[str, Any]) -> None:
    """A lone order must have a route in both stages; one that needs company would wait for ever."""
    venue = account(**options)
    todo = {kind: [{"id": "1", "symbol": "BTCUSDT", "kind": kind}] for kind in ("tpsl", "stop")}
    swept = [{"sweep": {"todo": [{"id": str(n), "symbol": "BTCUSDT"} for n in range(30)]}}]
    swept += [{"sweep": {"todo": rows}} for rows in todo.values()]
    looks = [{"n": n, "f": f, "abs": {"realtime": n}} for n in range(4) for f in range(3)]
    waits = [(Stage.CANCEL, venue.cancel_class(target(scope="account", symbol=None, notes=notes))) for notes in swept]
    for scope in ("order", "tpsl", "stop"):
        for notes in looks:
            waits.append((Stage.LOOK, venue.next_look(target(ORDER_ID, scope=scope, notes=notes)).look_class))
            waits.append((Stage.LOOK, venue.next_look(target(None, "c", scope=scope, notes=notes)).look_class))
        waits.append((Stage.CANCEL, venue.cancel_class(target(ORDER_ID, scope=scope))))
    for kinds in ("order", "tpsl", "stop", "order,tpsl,stop"):
        for intent in (target(scope="symbol", kinds=kinds), target(scope="symbol", kinds=kinds, client_prefix="m")):
            plan = venue.admit(intent.fields)
            assert isinstance(plan, Plan)
            waits += [(Stage.LOOK, plan.look_class)]
            waits += [(Stage.CANCEL, plan.cancel_class)] if plan.start is Stage.CANCEL else []
    for stage, waiting in waits:
        kind = waiting.partition(":")[0]
        assert any(r.stage is stage and kind in r.kinds and r.least == 1 for r in venue.routes), waiting


def test_each_route_has_its_bucket_and_each_bucket_the_documented_limit() -> None:
    second = 1_000_000
    assert {b.name: (b.units, b.window_us) for b in BYBIT.buckets} == {
        "cancel": (20, second),
        "cancel-batch": (20, second),
        "cancel-all": (20, second),
        "realtime": (50, second),
        "history": (50, second),
    }
    assert [(b.name, b.units, b.window_us) for b in BYBIT.address_buckets] == [
        ("bybit-ip", 600, 5 * second),
        ("bybit-connects", 400, 300 * second),  # four fifths of 500: the desk's own programs connect, too
    ]
    for route in BYBIT.routes:
        assert route.address == BYBIT.other_address == ("bybit-ip",)
        assert route.bucket == BYBIT.endpoint(route.name if route.stage is Stage.CANCEL else route.bucket)[10:]
        assert route.errors == 0


def test_a_batch_costs_a_unit_for_each_order() -> None:
    assert (ROUTES["cancel-batch"].per_call, ROUTES["cancel-batch"].per_order) == (0, 1)
    assert ROUTES["sweep-batch"].by_class
    todo = [{"id": str(n), "symbol": "BTCUSDT"} for n in range(7)]
    sweep = target(scope="account", symbol=None, notes={"sweep": {"todo": todo}})
    assert BYBIT.cancel_class(sweep) == "sweep-order:7"


def test_a_sweep_s_batch_names_no_more_orders_than_its_permit_pays_for() -> None:
    """Its class was told by a worker whose batches are smaller, or the venue has made the bucket smaller."""
    todo = [{"id": str(n), "symbol": "BTCUSDT"} for n in range(7)]
    sweep = target(scope="account", symbol=None, notes={"sweep": {"todo": todo}})
    sweep.paid = 3
    assert len(orjson.loads(encode("sweep-batch", sweep).body)["request"]) == 3
    assert BYBIT.sweep_named("sweep-batch", sweep) == 3


@pytest.mark.parametrize("options", [{"singly": True}, {"batch_size": 1}, {"limits": {"cancel-batch": 1}}])
def test_without_batches_everything_goes_singly(options: dict[str, Any]) -> None:
    venue = account(**options)
    assert not [r for r in venue.routes if r.bucket == "cancel-batch"]
    todo = [{"id": str(n), "symbol": "BTCUSDT"} for n in range(30)]
    sweep = target(scope="symbol", notes={"sweep": {"todo": todo}})
    assert venue.cancel_class(sweep) == "sweep-order"
    assert venue.sweep_named("cancel", sweep) == 1


@pytest.mark.parametrize(
    ("options", "most"),
    [({}, 10), ({"batch_size": 4}, 4), ({"batch_size": 50}, 10), ({"limits": {"cancel-batch": 5}}, 4)],
)
def test_a_batch_is_as_large_as_venue_account_and_bucket_allow(options: dict[str, Any], most: int) -> None:
    venue = account(**options)
    routes = {r.name: r for r in venue.routes}
    assert routes["cancel-batch"].most == most
    todo = [{"id": str(n), "symbol": "BTCUSDT"} for n in range(30)]
    assert venue.sweep_named("sweep-batch", target(scope="symbol", notes={"sweep": {"todo": todo}})) == most


@pytest.mark.parametrize(
    ("more", "batches"),
    [
        ({}, True),
        ({"demo": True}, False),
        ({"base_url": "https://api-demo.bybit.com"}, False),
        ({"base_url": "https://api-testnet.bybit.com"}, True),
    ],
)
def test_demo_accounts_are_opened_without_batches(more: dict[str, Any], batches: bool) -> None:
    opened = KIND.open(Account(api_key=SecretStr("k"), api_secret=SecretStr("s"), **more))
    assert any(r.bucket == "cancel-batch" for r in opened.routes) == batches


def test_limits_can_be_set_for_an_account_that_has_others() -> None:
    venue = account(limits={"cancel": 40, "bybit-ip": 100})
    assert {b.name: b.units for b in venue.buckets}["cancel"] == 40
    # What the settings say counts more than a larger limit that the venue tells.
    assert {b.name for b in (*venue.buckets, *venue.address_buckets) if b.fixed} == {"cancel", "bybit-ip"}
    assert venue.address_buckets[0].units == 100


# -- what is sent --------------------------------------------------------------------------------------------


def test_exactly_one_id_is_sent_and_the_order_id_wins() -> None:
    body = orjson.loads(encode("cancel", target(ORDER_ID, "mine-1")).body)
    assert body == {"category": "spot", "symbol": "BTCUSDT", "orderId": ORDER_ID}


def test_an_order_id_that_was_learnt_is_used() -> None:
    learnt = target(client_order_id="mine-1", notes={"oid": ORDER_ID})
    assert orjson.loads(encode("cancel", learnt).body)["orderId"] == ORDER_ID
    assert set(BYBIT.order_keys(learnt)) == {f"order:i:BTCUSDT:{ORDER_ID}", "order:c:BTCUSDT:mine-1"}


def test_an_id_with_odd_characters_stays_one_value_of_the_query() -> None:
    request = encode("realtime", target(client_order_id="a&b=c#d+e/f:g"))
    assert request.query == "category=spot&orderLinkId=a%26b%3Dc%23d%2Be%2Ff%3Ag"


def test_a_sweep_s_batch_names_the_normal_orders_before_the_first_that_is_none() -> None:
    """A batch has no filter: a trigger order in it would not be found."""
    first, fired = {"id": "1", "symbol": "ETHUSDT"}, {"id": "2", "symbol": "BTCUSDT"}
    trigger = {"id": "3", "symbol": "BTCUSDT", "kind": "stop"}
    sweep = target(scope="account", symbol=None, kinds="order,stop", notes={"sweep": {"todo": [first, fired, trigger]}})
    named = orjson.loads(encode("sweep-batch", sweep).body)["request"]
    assert [ref["orderId"] for ref in named] == ["1", "2"]
    assert BYBIT.sweep_named("sweep-batch", sweep) == 2
    rest = target(scope="account", symbol=None, kinds="order,stop", notes={"sweep": {"todo": [trigger, first]}})
    with pytest.raises(ValueError, match="normal orders only"):
        encode("sweep-batch", rest)


def test_tpsl_and_stop_orders_found_by_a_sweep_carry_their_filter() -> None:
    for kind, filter_ in (("tpsl", "tpslOrder"), ("stop", "StopOrder")):
        todo = [
            {"id": ORDER_ID, "symbol": "ETHUSDT", "kind": kind},
            {"id": OTHER_ID, "symbol": "ETHUSDT", "kind": kind},
        ]
        sweep = target(scope="account", symbol=None, kinds=kind, notes={"sweep": {"todo": todo}})
        body = orjson.loads(encode("cancel", sweep).body)
        assert body == {"category": "spot", "symbol": "ETHUSDT", "orderId": ORDER_ID, "orderFilter": filter_}
        with pytest.raises(ValueError, match="filter"):
            encode("sweep-batch", sweep)


IDS = st.from_regex(r"[1-9][0-9]{0,18}", fullmatch=True)
SYMBOLS = st.sampled_from(["BTCUSDT", "ETHUSDT", "SOLUSDC"])
ANY_SYMBOL = st.one_of(SYMBOLS, st.sampled_from(["", None]))
KINDS = st.sampled_from([None, "order", "tpsl", "stop", "stop,tpsl", "tpsl,order", "order,tpsl,stop"])
TODO = st.lists(
    st.fixed_dictionaries(
        {"id": st.one_of(IDS, st.just("")), "symbol": st.one_of(SYMBOLS, st.just(""))},
        optional={"kind": st.sampled_from(["tpsl", "stop"])},
    ),
    max_size=13,
)


@st.composite
def any_targets(draw: st.DrawFn) -> list[Target]:
    """As many orders as somebody might ever put into one call, well formed or not."""
    scope = draw(st.sampled_from(["order", "tpsl", "stop", *BULKS]))
    if scope in BULKS:
        notes = {"sweep": {"todo": draw(TODO), "bulk": draw(st.sampled_from(["", "bulk-order"]))}}
        more = {"kinds": draw(KINDS), "client_prefix": draw(st.sampled_from([None, "m"]))}
        given_: dict[str, Any] = {name: value for name, value in more.items() if value}
        return [target(scope=scope, symbol=draw(ANY_SYMBOL), notes=notes if draw(st.booleans()) else {}, **given_)]
    count = draw(st.integers(0, 12))
    scopes = [draw(st.sampled_from(["order", "tpsl", "stop"])) if draw(st.booleans()) else scope for _ in range(count)]
    return [
        target(
            draw(st.one_of(IDS, st.none(), st.just(""))),
            draw(st.one_of(st.just(f"mine-{n}"), st.none())),
            scope=scopes[n],
            symbol=draw(ANY_SYMBOL),
        )
        for n in range(count)
    ]


@settings(max_examples=400)
@given(st.sampled_from(CANCELS), any_targets())
def test_a_cancel_names_what_it_is_about_or_is_not_made(route: str, targets: list[Target]) -> None:
    """At this venue a missing symbol means every order of the account. So it is sent for an account only, and then
    only for all orders of the kind that is asked for."""
    try:
        request = BYBIT.encode(ROUTES[route], targets)
    except ValueError:
        return
    body = orjson.loads(request.body)
    assert request.method == "POST"
    assert body.pop("category") == "spot"
    if request.path.endswith("/cancel-batch"):
        assert list(body) == ["request"]
        assert 1 <= len(body["request"]) <= BATCH_MOST
        for item in body["request"]:
            assert set(item) in ({"symbol", "orderId"}, {"symbol", "orderLinkId"})
            assert all(item.values())
        assert all(t.scope == "order" for t in targets) or route == "sweep-batch"
    elif request.path.endswith("/cancel-all"):
        _check_bulk(body, targets[0])
    else:
        assert request.path.endswith("/cancel")
        assert body.pop("orderFilter", None) in (None, "tpslOrder", "StopOrder")
        assert set(body) in ({"symbol", "orderId"}, {"symbol", "orderLinkId"})
        assert all(body.values())


def _check_bulk(body: dict[str, Any], one: Target) -> None:
    asked = one.fields.get("kinds", "order").split(",")
    kind = {None: "order", "tpslOrder": "tpsl", "StopOrder": "stop"}[body.pop("orderFilter", None)]
    assert kind in asked
    assert "client_prefix" not in one.fields
    if one.scope == "symbol":
        assert body == {"symbol": one.symbol}
        assert one.symbol
    else:
        assert one.scope == "account"
        assert body == {}


@pytest.mark.parametrize("route", ROUTES)
def test_no_call_is_made_for_no_order(route: str) -> None:
    with pytest.raises(ValueError, match="name"):
        encode(route)


@pytest.mark.parametrize("route", [name for name, route in ROUTES.items() if route.most == 1])
def test_a_call_for_one_order_does_not_swallow_a_second(route: str) -> None:
    with pytest.raises(ValueError, match="1 orders"):
        encode(route, *TWO)


@pytest.mark.parametrize("route", ["realtime", "history", "cancel", "cancel-batch", "sweep-batch"])
def test_a_call_that_would_name_no_order_is_not_made(route: str) -> None:
    nothing: list[dict[str, Any]] = [{}, {"sweep": {}}, {"sweep": {"todo": []}}]
    for notes in nothing:
        with pytest.raises(ValueError, match="name"):
            encode(route, target(notes=notes) if route != "sweep-batch" else target(scope="account", notes=notes))


# -- what an answer says: the whole call ---------------------------------------------------------------------

UNREADABLE = {
    "empty": b"",
    "html": b"<html><body>502 Bad Gateway</body></html>",
    "half": b'{"retCode":0,"retMsg":"OK","resu',
    "list": b'[{"retCode":0}]',
    "null": b"null",
    "object without code": b'{"retMsg":"OK","result":{"orderId":"1523347543495541248"}}',
    "empty object": b"{}",
    "not UTF-8": b'{"retCode":0,"retMsg":"\xff\xfe"}',
    "deep": b'{"retCode":' * 2000 + b"}" * 2000,
    "null code": b'{"retCode":null,"result":{"orderId":"1523347543495541248"}}',
    "a code in a list": b'{"retCode":[0],"result":{"orderId":"1523347543495541248"}}',
    "another venue's code": b'{"code":"00000","data":{"orderId":"1523347543495541248"}}',
    "two documents": b'{"retCode":0}{"retCode":0}',
}


@pytest.mark.parametrize("body", UNREADABLE.values(), ids=UNREADABLE)
@pytest.mark.parametrize("route", ["cancel", "cancel-batch", "realtime", "history"])
def test_what_cannot_be_read_is_unclear(route: str, body: bytes) -> None:
    for status in (200, 201, 204, 302, 400, 404, 408, 500, 502, 504):
        (reply,) = decode(route, raw(body, status), target(ORDER_ID))
        assert reply.word is Word.UNCLEAR, status


@pytest.mark.parametrize("status", [500, 502, 503, 520, 599])
def test_a_server_error_is_unclear_whatever_it_says(status: int) -> None:
    """It may come from a gateway in front of a venue that did execute."""
    for code in (0, 170213, 10001, 10003, 10006, 170142):
        (reply,) = decode("cancel", answer({"orderId": ORDER_ID}, code=code, status=status), target(ORDER_ID))
        assert (reply.word, reply.notes) == (Word.UNCLEAR, {}), code


@pytest.mark.parametrize("status", [201, 202, 204, 301, 400, 404, 418])
@pytest.mark.parametrize("code", [0, 170212])
def test_success_under_another_status_is_not_believed(status: int, code: int) -> None:
    (reply,) = decode("cancel", answer({"orderId": ORDER_ID}, code=code, status=status), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


@pytest.mark.parametrize("body", [b"access too frequent", b"<html>", b'{"retCode":0}', b'{"retCode":10006}', b""])
def test_a_forbidden_address_is_quiet_for_ten_minutes(body: bytes) -> None:
    for route in ("cancel", "realtime"):
        (reply,) = decode(route, raw(body, 403), target(ORDER_ID))
        assert (reply.word, reply.retry_us, reply.whole_address) == (Word.REFUSED, 600_000_000, True)


@pytest.mark.parametrize("said", [raw(b"", 429), raw(b"<html>", 429), answer(code=429), answer(code=10429, status=429)])
def test_the_platforms_protection_is_a_short_refusal(said: Answer) -> None:
    for route in ("cancel", "realtime"):
        (reply,) = decode(route, said, target(ORDER_ID))
        assert (reply.word, reply.whole_address, reply.retry_us) == (Word.REFUSED, False, 0)


def test_a_refused_key_is_known_by_the_status_too() -> None:
    assert decode("cancel", raw(b"", 401), TWO[0])[0].word is Word.ACCOUNT
    assert decode("cancel", answer(code=10003, status=401), TWO[0])[0].code == "10003"


@pytest.mark.parametrize(
    ("reset", "retry_us"),
    [
        (NOW_MS + 350, 350_000),
        (NOW_MS + 30_000, 30_000_000),
        (NOW_MS + 600_000, 600_000_000),
        (NOW_MS + 600_001, 0),
        (NOW_MS, 0),
        (NOW_MS - 1, 0),
        (NOW_MS // 1000, 0),
        ("soon", 0),
        ("", 0),
        ("٣" * 13, 0),
    ],
)
def test_over_the_limit_waits_until_the_venue_counts_anew(reset: int | str, retry_us: int) -> None:
    said = answer({}, code=10006, x_bapi_limit_reset_timestamp=str(reset))
    (reply,) = decode("cancel", said, target(ORDER_ID))
    assert (reply.word, reply.retry_us, reply.whole_address) == (Word.REFUSED, retry_us, False)


@pytest.mark.parametrize("code", [170213, 110001, 170142, 170212])
def test_what_does_not_say_which_order_is_unclear_for_many(code: int) -> None:
    replies = decode("cancel-batch", answer({}, code=code), *TWO)
    assert [(r.word, r.notes) for r in replies] == [(Word.UNCLEAR, {})] * 2


@pytest.mark.parametrize("code", [10001, 170121, 170130, 10032])
def test_a_batch_refused_as_a_whole_is_sent_in_halves(code: int) -> None:
    """One entry may have spoilt it: the others must not be rejected with it."""
    assert [r.word for r in decode("cancel-batch", answer({}, code=code), *TWO)] == [Word.SPLIT] * 2
    assert [r.word for r in decode("cancel-batch", answer({}, code=code), TWO[0])] == [Word.FAILED]


@pytest.mark.parametrize(
    ("msg", "field"),
    [
        ("Invalid symbol.", "symbol"),
        ("Data sent for parameter 'orderId' is not valid.", "order_id"),
        ("params error: orderLinkId too long", "client_order_id"),
        ("Request parameter error.", "refused by the venue"),
    ],
)
def test_a_rejection_names_the_field(msg: str, field: str) -> None:
    (reply,) = decode("cancel", answer({}, code=10001, msg=msg), target(ORDER_ID))
    assert reply.text.startswith(f"{field}: ")
    assert msg in reply.text


# -- what an answer says: single cancels and bulk -------------------------------------------------------------


def test_an_acknowledgement_is_never_more_than_that() -> None:
    said = answer({"orderId": ORDER_ID, "orderLinkId": "mine-1"})
    for one in (target(ORDER_ID), target(client_order_id="mine-1"), target(ORDER_ID, scope="tpsl")):
        (reply,) = decode("cancel", said, one)
        assert (reply.word, reply.order_id, reply.client_order_id) == (Word.ACKNOWLEDGED, ORDER_ID, "mine-1")


@pytest.mark.parametrize(
    "result", [None, [], "OK", 1, [{"orderId": ORDER_ID}], {"orderId": OTHER_ID}, {"orderId": "x"}, {"orderId": 1}]
)
def test_an_answer_about_another_order_is_unclear(result: Any) -> None:
    (reply,) = decode("cancel", answer(result), target(ORDER_ID))
    assert reply.word is Word.UNCLEAR


def test_a_client_id_that_is_not_ones_own_is_unclear() -> None:
    mine = target(client_order_id="mine-1")
    assert decode("cancel", answer({"orderId": ORDER_ID, "orderLinkId": "mine-2"}), mine)[0].word is Word.UNCLEAR
    assert decode("cancel", answer({"orderId": ORDER_ID, "orderLinkId": ""}), mine)[0].word is Word.ACKNOWLEDGED


def test_an_id_that_is_a_number_is_the_same_id() -> None:
    (reply,) = decode("cancel", answer({"orderId": int(ORDER_ID)}), target(ORDER_ID))
    assert (reply.word, reply.order_id) == (Word.ACKNOWLEDGED, ORDER_ID)


@pytest.mark.parametrize(
    ("result", "word"),
    [
        ({"list": [], "success": "1"}, Word.ACKNOWLEDGED),
        ({"success": "1"}, Word.ACKNOWLEDGED),
        ({"list": [{"orderId": ORDER_ID, "orderLinkId": ""}], "success": "0"}, Word.UNCLEAR),
        ({"list": []}, Word.UNCLEAR),
        ({}, Word.UNCLEAR),
        (None, Word.UNCLEAR),
    ],
)
def test_a_bulk_cancel_is_acknowledged_by_its_success(result: Any, word: Word) -> None:
    (reply,) = decode("cancel-all", answer(result), target(scope="symbol"))
    assert reply.word is word


# -- what an answer says: batches ----------------------------------------------------------------------------

EMPTY = {"category": "spot", "symbol": "BTCUSDT", "orderId": "", "orderLinkId": ""}
FIRST, SECOND = {**EMPTY, "orderId": ORDER_ID}, {**EMPTY, "orderId": OTHER_ID}
GOOD, DEAD = {"code": 0, "msg": "OK"}, {"code": 170213, "msg": "Order does not exist."}
ACK, GONE, UNCLEAR = Word.ACKNOWLEDGED, Word.GONE, Word.UNCLEAR

BATCHES = {
    "both taken": (batch([FIRST, SECOND], [GOOD, GOOD]), (ACK, ACK)),
    "one failed, its id left out": (batch([FIRST, EMPTY], [GOOD, DEAD]), (ACK, GONE)),
    "one failed, its id repeated": (batch([FIRST, SECOND], [DEAD, GOOD]), (GONE, ACK)),
    "both failed": (batch([EMPTY, EMPTY], [DEAD, DEAD]), (GONE, GONE)),
    "a code in text": (batch([FIRST, SECOND], [{"code": "0"}, {"code": "170213"}]), (ACK, GONE)),
    "in another order": (batch([SECOND, FIRST], [GOOD, DEAD]), (UNCLEAR, UNCLEAR)),
    "one row of another order": (batch([FIRST, {**EMPTY, "orderId": "1"}], [GOOD, DEAD]), (UNCLEAR, UNCLEAR)),
    "one row missing": (batch([FIRST], [GOOD, GOOD]), (UNCLEAR, UNCLEAR)),
    "one outcome missing": (batch([FIRST, SECOND], [GOOD]), (UNCLEAR, UNCLEAR)),
    "one too many": (batch([FIRST, SECOND, SECOND], [GOOD, GOOD, GOOD]), (UNCLEAR, UNCLEAR)),
    "one row too many": (batch([FIRST, SECOND, EMPTY], [GOOD, GOOD]), (UNCLEAR, UNCLEAR)),
    "empty lists": (batch([], []), (UNCLEAR, UNCLEAR)),
    "no lists": (answer({}), (UNCLEAR, UNCLEAR)),
    "lists that are none": (batch("xx", {"0": GOOD}), (UNCLEAR, UNCLEAR)),
    "rows that are none": (batch([None, [ORDER_ID]], [GOOD, GOOD]), (UNCLEAR, UNCLEAR)),
    "outcomes that are none": (batch([FIRST, SECOND], [0, None]), (UNCLEAR, UNCLEAR)),
    "no code": (batch([FIRST, SECOND], [{"msg": "OK"}, GOOD]), (UNCLEAR, ACK)),
    "an unlisted code": (batch([FIRST, SECOND], [{"code": 199987}, {"code": "00000"}]), (UNCLEAR, UNCLEAR)),
    "a bad id": (batch([EMPTY, SECOND], [{"code": 170130, "msg": "orderId"}, GOOD]), (Word.FAILED, ACK)),
    "one over the limit": (batch([FIRST, EMPTY], [GOOD, {"code": 10006}]), (ACK, Word.REFUSED)),
    "out of place": (batch([EMPTY, FIRST], [{"code": 170145, "msg": ""}, GOOD]), (UNCLEAR, UNCLEAR)),
    "still being cancelled": (batch([EMPTY, EMPTY], [{"code": 170212}, {"code": 170035}]), (ACK, ACK)),
}


@pytest.mark.parametrize(("said", "words"), BATCHES.values(), ids=BATCHES)
def test_a_batch_answer_speaks_for_each_order_by_its_place(said: Answer, words: tuple[Word, ...]) -> None:
    assert tuple(r.word for r in decode("cancel-batch", said, *TWO)) == words


def test_a_batch_may_mix_id_kinds() -> None:
    mine = target(client_order_id="mine-1")
    rows = [{**EMPTY, "orderId": "77", "orderLinkId": "mine-1"}, {**SECOND, "orderLinkId": "theirs"}]
    first, second = decode("cancel-batch", batch(rows, [GOOD, GOOD]), mine, target(OTHER_ID))
    assert (first.word, first.order_id) == (ACK, "77")
    assert (second.word, second.client_order_id) == (ACK, "theirs")


def test_a_row_that_does_not_tell_the_client_id_teaches_no_order_id() -> None:
    """It may be that of a neighbour."""
    mine = target(client_order_id="mine-1")
    for told, learnt in (("mine-1", "77"), ("", "")):
        named = {"orderId": "77", "orderLinkId": told}
        for route, said in (("cancel", answer(named)), ("cancel-batch", batch([named], [GOOD]))):
            (reply,) = decode(route, said, mine)
            assert (reply.word, reply.order_id) == (ACK, learnt)


def test_an_item_over_the_limit_waits_until_the_venue_counts_anew() -> None:
    said = batch([FIRST, EMPTY], [GOOD, {"code": 10006}], x_bapi_limit_reset_timestamp=str(NOW_MS + 600))
    first, second = decode("cancel-batch", said, *TWO)
    assert (first.retry_us, second.retry_us) == (0, 600_000)


@pytest.mark.parametrize(
    ("outcomes", "word"),
    [
        ([GOOD, GOOD], ACK),
        ([DEAD, GOOD], ACK),
        ([GOOD, {"code": 10006}], ACK),
        ([{"code": 10006}, {"code": 10006}], Word.REFUSED),
        ([DEAD, DEAD], GONE),
        ([DEAD, {"code": 10006}], UNCLEAR),
        ([GOOD], UNCLEAR),
    ],
)
def test_a_sweeps_batch_comes_to_one_word(outcomes: list[Any], word: Word) -> None:
    todo = [{"id": ORDER_ID, "symbol": "BTCUSDT"}, {"id": OTHER_ID, "symbol": "BTCUSDT"}]
    sweep = target(scope="symbol", notes={"sweep": {"todo": todo}})
    (reply,) = decode("sweep-batch", batch([EMPTY] * len(outcomes), outcomes), sweep)
    assert reply.word is word


def test_what_of_a_sweeps_batch_went_over_the_limit_is_told_with_its_reset() -> None:
    todo = [{"id": ORDER_ID, "symbol": "BTCUSDT"}, {"id": OTHER_ID, "symbol": "BTCUSDT"}]
    sweep = target(scope="symbol", notes={"sweep": {"todo": todo}})
    for first, word in ((GOOD, ACK), (DEAD, UNCLEAR)):
        said = batch([EMPTY, EMPTY], [first, {"code": 10006}], x_bapi_limit_reset_timestamp=str(NOW_MS + 600))
        (reply,) = decode("sweep-batch", said, sweep)
        assert reply.word is word
        assert reply.over_limit is not None
        assert (reply.over_limit.word, reply.over_limit.retry_us) == (Word.REFUSED, 600_000)
    (reply,) = decode("sweep-batch", batch([EMPTY, EMPTY], [GOOD, GOOD]), sweep)
    assert reply.over_limit is None


# -- time and probe ------------------------------------------------------------------------------------------


def test_the_venues_time_is_read() -> None:
    assert [request.path for request in BYBIT.time_requests] == ["/v5/market/time"]
    assert BYBIT.read_time(answer({"timeSecond": "1700000000", "timeNano": "1700000000123456789"})) == 1700000000123
    assert BYBIT.read_time(answer({"timeSecond": "1700000000"})) == 1700000000000


@pytest.mark.parametrize("result", [None, [], {}, {"timeNano": "soon"}, {"timeSecond": "٣" * 10}, {"timeSecond": True}])
def test_a_time_that_is_none_is_not_believed(result: Any) -> None:
    assert BYBIT.read_time(answer(result)) is None
    assert BYBIT.read_time(raw(b"<html>")) is None


def test_a_probe_reads_and_changes_nothing() -> None:
    request = BYBIT.probe_request()
    assert (request.method, request.path, request.body) == ("GET", "/v5/order/realtime", b"")
    assert request.query == "category=spot&limit=1"
    assert BYBIT.read_probe(answer({"list": [row()]})).word is Word.OPEN
    assert BYBIT.read_probe(answer(code=10003)).word is Word.ACCOUNT
    assert BYBIT.read_probe(raw(b"", 502)).word is Word.UNCLEAR


@pytest.mark.parametrize(
    ("header", "size"), [("1", 1), ("40", 40), ("1200", 1200), ("1201", None), ("999999", None), ("0", None)]
)
def test_a_limit_is_taken_from_the_venue_up_to_the_largest_it_grants(header: str, size: int | None) -> None:
    assert BYBIT.told_limit(answer(x_bapi_limit=header)) == size
