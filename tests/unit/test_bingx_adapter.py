"""BingX's calls: which intents fit, where they wait, and what is sent for them."""

import re
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Plan, Request, Stage, Target, Unfit, Word
from tests.unit.bingx_account import (
    BINGX,
    ORDER_ID,
    OTHER_ID,
    PAIR,
    ROUTES,
    account,
    answer,
    encode,
    raw,
    target,
)

TRADE = "/openApi/spot/v1/trade/"
ALL_KINDS = "order,tpsl,stop"
TWO = (target(ORDER_ID), target(OTHER_ID))
CANCELS = [name for name, route in ROUTES.items() if route.stage is Stage.CANCEL]
LOOKS = [name for name, route in ROUTES.items() if route.stage is Stage.LOOK]
SWEEPS = ["cancel-open", "sweep-cancel", "sweep-one", "sweep-list"]


# -- admission -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("intent", "plan"),
    [
        (target(ORDER_ID), ("id:BTC-USDT", "any:BTC-USDT", (f"i:{ORDER_ID}",))),
        (target(client_order_id="c1"), ("cid:BTC-USDT", "named:BTC-USDT", ("c:BTC-USDT:c1",))),
        (target(ORDER_ID, "c1"), ("id:BTC-USDT", "any:BTC-USDT", (f"i:{ORDER_ID}",))),
        (target(ORDER_ID, symbol="ETH-USDT"), ("id:ETH-USDT", "any:ETH-USDT", (f"i:{ORDER_ID}",))),
        (target(ORDER_ID, scope="tpsl"), ("trigger:BTC-USDT", "any:BTC-USDT", (f"i:{ORDER_ID}",))),
        (target(ORDER_ID, scope="stop"), ("trigger:BTC-USDT", "any:BTC-USDT", (f"i:{ORDER_ID}",))),
        (target(client_order_id="c1", scope="stop"), ("trigger:BTC-USDT", "named:BTC-USDT", ("c:BTC-USDT:c1",))),
        (target(ORDER_ID, only_if="NEW"), ("only:BTC-USDT", "any:BTC-USDT", (f"i:{ORDER_ID}",))),
    ],
)
def test_an_intent_finds_its_class(intent: Target, plan: tuple[str, str, tuple[str, ...]]) -> None:
    made = BINGX.admit(intent.fields)
    assert isinstance(made, Plan)
    assert (made.cancel_class, made.look_class, made.orders) == plan
    assert made.start is Stage.CANCEL


@pytest.mark.parametrize(
    ("intent", "plan"),
    [
        (target(scope="symbol"), ("sweep-order", Stage.LOOK)),
        (target(scope="symbol", kinds=ALL_KINDS), ("bulk", Stage.CANCEL)),
        (target(scope="symbol", kinds="order,stop"), ("sweep-order", Stage.LOOK)),
        (target(scope="symbol", kinds="tpsl"), ("sweep-tpsl", Stage.LOOK)),
        (target(scope="symbol", kinds=ALL_KINDS, client_prefix="mm_"), ("sweep-order", Stage.LOOK)),
        (target(scope="account", symbol=None, kinds=ALL_KINDS), ("bulk", Stage.CANCEL)),
        (target(scope="account", symbol=None, kinds=ALL_KINDS, older_than_ms="1"), ("sweep-order", Stage.LOOK)),
        (target(scope="account", symbol=None), ("sweep-order", Stage.LOOK)),
    ],
)
def test_a_sweep_begins_with_the_bulk_call_only_if_all_kinds_are_meant(intent: Target, plan: tuple[str, Stage]) -> None:
    """Whether the call spares trigger orders is documented nowhere."""
    made = BINGX.admit(intent.fields)
    assert isinstance(made, Plan)
    assert (made.cancel_class, made.start) == plan
    assert (made.look_class, made.orders) == ("sweep-all", ())


@pytest.mark.parametrize("scope", ["order", "tpsl", "stop", "symbol"])
@pytest.mark.parametrize(
    ("symbol", "right"),
    [
        ("BTCUSDT", "BTC-USDT"),
        ("btcusdt", "BTC-USDT"),
        ("btc-usdt", "BTC-USDT"),
        ("BTC_USDT", "BTC-USDT"),
        ("Eth-Btc", "ETH-BTC"),
        ("ETHBTC", "ETH-BTC"),
        ("1000PEPEUSDC", "1000PEPE-USDC"),
        ("BTC", "BTC-USDT"),
        ("---", "BTC-USDT"),
        ("A-B-C", "BTC-USDT"),
    ],
)
def test_a_pair_spelled_for_another_venue_is_told_its_right_name(scope: str, symbol: str, right: str) -> None:
    unfit = BINGX.admit(target(ORDER_ID if scope != "symbol" else None, scope=scope, symbol=symbol).fields)
    assert isinstance(unfit, Unfit)
    assert unfit.field == "symbol"
    assert unfit.detail.startswith("symbol: ")
    assert f"should be {right!r}" in unfit.detail


@pytest.mark.parametrize("scope", ["order", "tpsl", "stop", "symbol"])
def test_without_a_pair_nothing_is_admitted_but_a_whole_account(scope: str) -> None:
    unfit = BINGX.admit(target(ORDER_ID if scope != "symbol" else None, scope=scope, symbol=None).fields)
    assert isinstance(unfit, Unfit)
    assert unfit.field == "symbol"
    assert isinstance(BINGX.admit(target(scope="account", symbol=None).fields), Plan)


@pytest.mark.parametrize("order_id", ["my-own-7", "0", "007", "1.0", "1e18", "-1", "1 2", "1,2", "٣", "1" * 33])
def test_what_can_be_no_order_id_is_refused_with_its_remedy(order_id: str) -> None:
    unfit = BINGX.admit(target(order_id).fields)
    assert isinstance(unfit, Unfit)
    assert unfit.detail.startswith("order_id: ")
    assert "client_order_id" in unfit.detail


@pytest.mark.parametrize("client_id", ["a&b", "a=b", "a?b", "a#b", "a,b", "a b", "a\tb", "a\x00b", "&orderId=1"])
def test_a_client_id_that_would_change_what_is_signed_is_refused(client_id: str) -> None:
    unfit = BINGX.admit(target(client_order_id=client_id).fields)
    assert isinstance(unfit, Unfit)
    assert unfit.detail.startswith("client_order_id: ")
    assert "order_id" in unfit.detail.removeprefix("client_order_id: ")
    assert isinstance(BINGX.admit(target(ORDER_ID, client_id).fields), Plan), "the order id is used"


@pytest.mark.parametrize("client_id", ["a", "A_1", "a.b", "a:b", "a+b", "a/b", "x" * 64])
def test_plausible_client_ids_are_left_to_the_venue(client_id: str) -> None:
    assert isinstance(BINGX.admit(target(client_order_id=client_id).fields), Plan)


INTENTS = [
    target(ORDER_ID),
    target(client_order_id="c1"),
    *(target(ORDER_ID, scope=scope) for scope in ("tpsl", "stop")),
    *(target(client_order_id="c1", scope=scope) for scope in ("tpsl", "stop")),
    target(ORDER_ID, only_if="PENDING"),
    target(client_order_id="c1", only_if="PENDING"),
    *(target(scope="symbol", kinds=kinds) for kinds in ("order", "tpsl", "stop", ALL_KINDS)),
    target(scope="account", symbol=None, kinds=ALL_KINDS),
]


@pytest.mark.parametrize("intent", INTENTS)
def test_every_class_an_intent_may_wait_in_is_served_by_a_route(intent: Target) -> None:
    """A lone order must have a route in both stages; one that needs company would wait for ever."""
    plan = BINGX.admit(intent.fields)
    assert isinstance(plan, Plan)
    seen = BINGX.cancel_class(replace(intent, notes={"seen": 1}))
    waits = [(Stage.CANCEL, plan.cancel_class), (Stage.CANCEL, seen), (Stage.LOOK, plan.look_class)]
    for stage, class_ in waits:
        kind = class_.partition(":")[0]
        serving = [r for r in BINGX.routes if r.queue is stage and kind in r.kinds]
        assert any(r.least == 1 and not r.first_look for r in serving), class_
    assert " " not in plan.cancel_class + plan.look_class


# -- equal errors --------------------------------------------------------------------------------------------

UNSEEN = {"id", "cid", "only", "trigger"}


def test_what_was_not_seen_open_is_looked_for_once_errors_have_closed_its_routes() -> None:
    for kind in UNSEEN:
        *sending, looking = [r for r in BINGX.routes if r.queue is Stage.CANCEL and kind in r.kinds]
        assert sending
        assert all(r.errors == 8 and not r.first_look for r in sending)
        assert (looking.first_look, looking.stage, looking.errors, looking.least) == (True, Stage.LOOK, 0, 1)


def test_what_was_seen_open_is_sent_up_to_the_last_third_before_the_lock() -> None:
    for kind in ("seen", "seen-cid", "seen-only", "seen-trigger", "sweep-order", "sweep-tpsl", "sweep-stop", "bulk"):
        *serving, last = [r for r in BINGX.routes if kind in r.kinds and r.queue is Stage.CANCEL]
        assert last.first_look is kind.startswith("seen"), "what waits as all of them are locked is looked at again"
        assert all(r.errors == 15 and not r.first_look for r in serving)
        assert serving or last.errors == 15


def test_every_look_has_a_list_that_no_error_closes() -> None:
    kinds = {kind for r in BINGX.routes if r.stage is Stage.LOOK for kind in r.kinds}
    for kind in kinds - UNSEEN:
        assert any(r.errors == 0 for r in BINGX.routes if r.stage is Stage.LOOK and kind in r.kinds), kind
    assert ROUTES["query"].errors == 8
    assert BINGX.errors_us == 480_000_000


@pytest.mark.parametrize(
    ("intent", "unseen", "seen"),
    [
        (target(ORDER_ID), "id", "seen"),
        (target(client_order_id="c1"), "cid", "seen-cid"),
        (target(client_order_id="c1", notes={"oid": ORDER_ID}), "id", "seen"),
        (target(ORDER_ID, scope="tpsl"), "trigger", "seen-trigger"),
        (target(ORDER_ID, only_if="NEW"), "only", "seen-only"),
    ],
)
def test_an_order_that_was_seen_open_waits_in_another_class(intent: Target, unseen: str, seen: str) -> None:
    assert BINGX.cancel_class(intent) == f"{unseen}:{PAIR}"
    assert BINGX.cancel_class(replace(intent, notes={**intent.notes, "seen": 1})) == f"{seen}:{PAIR}"


# -- limits --------------------------------------------------------------------------------------------------


def test_each_route_has_its_bucket_and_each_bucket_the_documented_limit() -> None:
    limits = {b.name: (b.units, b.window_us) for b in BINGX.buckets}
    second = 1_000_000
    assert limits == {
        "cancel": (5, second),
        "cancelOrders": (2, second),
        "cancelOpenOrders": (2, second),
        "query": (10, second),
        "openOrders": (10, second),
        "historyOrders": (10, second),
    }
    addresses = {b.name: (b.units, b.window_us) for b in BINGX.address_buckets}
    assert addresses == {
        "bingx-group-2": (2000, 10 * second),
        "bingx-group-3": (2000, 10 * second),
        **{f"bingx-{name}": (300, 10 * second) for name in limits},
        "bingx-sockets": (48, 0),  # four fifths of 60: the desk's own programs connect, too
    }
    for route in BINGX.routes:
        assert route.per_order == 0, "BingX counts calls, not the orders in them"
        group = "bingx-group-3" if route.stage is Stage.CANCEL else "bingx-group-2"
        assert route.address == (group, f"bingx-{route.bucket}")
        assert BINGX.endpoint(route.name) == TRADE + route.bucket
    assert set(BINGX.other_address) <= set(addresses)


def test_limits_and_batch_size_can_be_set_for_an_account() -> None:
    other = account({"cancel": 1, "bingx-group-3": 60, "bingx-query": 7}, 4)
    limits = {b.name: b.units for b in (*other.buckets, *other.address_buckets)}
    assert (limits["cancel"], limits["bingx-group-3"], limits["bingx-query"], limits["query"]) == (1, 60, 7, 10)
    most = {r.name: r.most for r in other.routes}
    assert (most["cancel-orders"], most["cancel-orders-seen"], most["cancel"]) == (4, 4, 1)
    todo = [{"id": str(1000 + n), "symbol": PAIR} for n in range(9)]
    sweep = target(scope="symbol", notes={"sweep": {"todo": todo}})
    assert (other.sweep_named("sweep-cancel", sweep), other.sweep_named("sweep-one", sweep)) == (4, 1)
    assert account(None, 30).encode(ROUTES["cancel-orders"], [target(str(n + 1)) for n in range(30)])


def test_two_cancels_of_an_order_are_kept_apart_and_a_look_stands_between_them() -> None:
    assert BINGX.timing.gap_us >= 2_000_000
    assert BINGX.timing.look_before_again


# -- what is sent --------------------------------------------------------------------------------------------


def sent(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.query, keep_blank_values=True))


def test_exactly_one_id_is_sent_and_the_order_id_wins() -> None:
    assert sent(encode("cancel", target(ORDER_ID, "c1"))) == {"symbol": PAIR, "orderId": ORDER_ID}
    learnt = target(client_order_id="c1", notes={"oid": ORDER_ID})
    assert sent(encode("cancel", learnt)) == {"symbol": PAIR, "orderId": ORDER_ID}
    assert set(BINGX.order_keys(learnt)) == {f"i:{ORDER_ID}", f"c:{PAIR}:c1"}


def test_all_scopes_share_their_order_keys() -> None:
    keys = {BINGX.order_keys(target(ORDER_ID, "c1", scope=scope)) for scope in ("order", "tpsl", "stop")}
    assert keys == {(f"i:{ORDER_ID}",)}
    assert BINGX.order_keys(target(scope="symbol")) == ()


def test_a_batch_never_lets_one_dead_id_block_the_others() -> None:
    """`process` is 0 unless sent, and then one bad id fails them all."""
    for route in ("cancel-orders", "cancel-orders-seen"):
        assert sent(encode(route, *TWO))["process"] == "1"


IDS = st.integers(1, 2**63 - 1).map(str)
CLIENT_IDS = st.one_of(st.from_regex(r"[0-9A-Za-z_]{1,20}", fullmatch=True), st.text(max_size=6))
SYMBOLS = st.sampled_from([PAIR, PAIR, "ETH-USDT", "", None, "BTCUSDT", "A-B&symbol=C-D", "A-B,C-D"])
TODO = st.lists(
    st.fixed_dictionaries(
        {"id": st.one_of(IDS, st.sampled_from(["", "1,2", "x"])), "symbol": st.sampled_from([PAIR, PAIR, "", "x"])}
    ),
    max_size=12,
)
NOTES = st.fixed_dictionaries(
    {},
    optional={
        "oid": IDS,
        "seen": st.just(1),
        "sweep": st.fixed_dictionaries({}, optional={"todo": TODO, "bulk": st.just("bulk")}),
        "walk": st.fixed_dictionaries({"by": st.sampled_from("ic"), "at": st.integers(1, 101)}),
    },
)
TARGETS = st.builds(
    target,
    st.one_of(st.none(), IDS),
    st.one_of(st.none(), CLIENT_IDS),
    scope=st.sampled_from(["order", "order", "tpsl", "stop", "symbol", "account"]),
    symbol=SYMBOLS,
    notes=NOTES,
    only_if=st.sampled_from([None, None, "NEW", "x"]),
)
COMPANIES = st.one_of(
    st.lists(TARGETS, max_size=3),
    st.lists(st.builds(target, IDS), min_size=1, max_size=12),
    st.lists(st.builds(lambda i: target(client_order_id=i), CLIENT_IDS), min_size=1, max_size=4),
)


@settings(max_examples=600)
@given(st.sampled_from(list(ROUTES)), COMPANIES)
def test_a_call_names_what_it_is_about_or_is_not_made(route: str, targets: list[Target]) -> None:
    """On this venue a missing symbol means every pair. So a cancel without one cannot be expressed, but for the
    bulk call of an intent that means the whole account; nor can an empty list, or an id that is two parameters."""
    try:
        request = encode(route, *targets)
    except ValueError:
        return
    params = sent(request)
    pairs = parse_qsl(request.query, keep_blank_values=True)
    assert len(pairs) == len(params), "no parameter twice"
    assert all(params.values()), "no empty value"
    assert request.body == b""
    assert request.method == ("GET" if route in LOOKS else "POST")
    if route in CANCELS:
        _check_cancel(request.path.removeprefix(TRADE), params, targets)


def _check_cancel(endpoint: str, params: dict[str, str], targets: list[Target]) -> None:
    symbol = params.pop("symbol", None)
    if endpoint == "cancelOpenOrders":
        assert params == {}
        whole_account = targets[0].scope == "account" and not targets[0].symbol
        assert (symbol is None) == whole_account
        assert symbol == (targets[0].symbol or None)
        return
    assert symbol is not None
    assert re.fullmatch(r"[A-Z0-9]+-[A-Z0-9]+", symbol)
    if endpoint == "cancel":
        params.pop("cancelRestrictions", None)
        ((name, value),) = params.items()
        assert name in ("orderId", "clientOrderID")
        assert "," not in value
        return
    assert endpoint == "cancelOrders"
    assert params.pop("process") == "1"
    ((name, value),) = params.items()
    assert name in ("orderIds", "clientOrderIDs")
    ids = value.split(",")
    assert 1 <= len(ids) <= 10
    assert all(ids)
    if targets[0].scope == "order":
        named = [t.order_id if name == "orderIds" else t.client_order_id for t in targets]
        assert ids == named
        assert all("only_if" not in t.fields and t.scope == "order" for t in targets)


@pytest.mark.parametrize("route", ROUTES)
def test_no_call_is_made_for_no_order(route: str) -> None:
    with pytest.raises(ValueError, match="name"):
        encode(route)


@pytest.mark.parametrize("route", [name for name, r in ROUTES.items() if r.most == 1 and name not in SWEEPS])
def test_a_call_for_one_order_does_not_swallow_a_second(route: str) -> None:
    with pytest.raises(ValueError, match="1 orders"):
        encode(route, *TWO)


@pytest.mark.parametrize(
    ("route", "targets"),
    [
        ("cancel-orders", [target(str(1000 + n)) for n in range(11)]),
        ("cancel-orders", [target(ORDER_ID), target(client_order_id="c1")]),
        ("cancel-orders", [target(ORDER_ID), target(OTHER_ID, symbol="ETH-USDT")]),
        ("cancel-orders", [target(ORDER_ID), target(OTHER_ID, only_if="NEW")]),
        ("cancel-orders", [target(ORDER_ID), target(OTHER_ID, scope="stop")]),
        ("history-page", [target(ORDER_ID), target(client_order_id="c1")]),
        ("open", [target(ORDER_ID), target(OTHER_ID, symbol="ETH-USDT")]),
        ("cancel-open", [target(ORDER_ID)]),
        ("cancel", [target(scope="symbol")]),
        ("cancel", [target(scope="account", symbol=None)]),
        ("cancel", [target(ORDER_ID, symbol=None)]),
        ("cancel-open", [target(scope="symbol", symbol=None)]),
        ("cancel-open", [target(scope="symbol", symbol="")]),
        ("cancel-open", [target(scope="symbol", client_prefix="mm_")]),
        ("cancel-open", [target(scope="account", symbol=None, older_than_ms="1")]),
        ("sweep-cancel", [target(scope="symbol", notes={"sweep": {"todo": []}})]),
        ("sweep-cancel", [target(scope="symbol", notes={"sweep": {"todo": [{"id": "1", "symbol": ""}]}})]),
        ("sweep-one", [target(scope="symbol", notes={"sweep": {"todo": [{"id": "1,2", "symbol": PAIR}]}})]),
        ("sweep-list", [target(scope="symbol", symbol=None)]),
        (
            "history-walk",
            [target(client_order_id=c, notes={"walk": {"by": "c", "at": n}}) for n, c in enumerate("ab", 2)],
        ),
    ],
)
def test_what_would_go_wrong_is_not_sent(route: str, targets: list[Target]) -> None:
    with pytest.raises(ValueError, match=r"name|mix|asked"):
        encode(route, *targets)


def test_a_sweep_cancels_by_order_id_one_pair_at_a_time() -> None:
    todo = [{"id": str(1000 + n), "symbol": PAIR if n < 4 else "ETH-USDT"} for n in range(30)]
    sweep = target(scope="account", symbol=None, notes={"sweep": {"todo": todo}})
    params = sent(encode("sweep-cancel", sweep))
    assert params == {"symbol": PAIR, "orderIds": "1000,1001,1002,1003", "process": "1"}
    assert BINGX.sweep_named("sweep-cancel", sweep) == 4
    assert sent(encode("sweep-one", sweep)) == {"symbol": PAIR, "orderId": "1000"}


# -- time and probe ------------------------------------------------------------------------------------------


def test_the_venues_time_is_read() -> None:
    told = [(request.method, request.path, request.query) for request in BINGX.time_requests]
    assert told == [("GET", "/openApi/spot/v1/server/time", ""), ("GET", "/openApi/swap/v2/server/time", "")]
    assert BINGX.read_time(answer({"serverTime": 1700000000123})) == 1700000000123


@pytest.mark.parametrize(
    "data",
    [None, [], {}, {"serverTime": ""}, {"serverTime": "soon"}, {"serverTime": 1700000000}, {"serverTime": "٣" * 13}],
)
def test_a_time_that_is_none_is_not_believed(data: Any) -> None:
    assert BINGX.read_time(answer(data)) is None
    assert BINGX.read_time(raw(b"<html>")) is None


def test_a_probe_reads_and_changes_nothing() -> None:
    request = BINGX.probe_request()
    assert (request.method, request.path, request.query) == ("GET", f"{TRADE}openOrders", "symbol=BTC-USDT")
    assert BINGX.read_probe(answer({"orders": []})).word is Word.OPEN
    assert BINGX.read_probe(answer(code=100413, msg="Incorrect apiKey")).word is Word.ACCOUNT
    assert BINGX.read_probe(raw(b"", 502)).word is Word.UNCLEAR


def test_what_no_list_tells_by_client_id_goes_into_a_batch_until_more_is_known_of_it() -> None:
    unseeable = {"blind": 1}
    assert BINGX.cancel_class(target(client_order_id="c1", notes=unseeable)) == f"blind:{PAIR}"
    assert BINGX.cancel_class(target(ORDER_ID, "c1", notes=unseeable)) == f"id:{PAIR}"
    assert BINGX.cancel_class(target(client_order_id="c1", notes={**unseeable, "oid": ORDER_ID})) == f"id:{PAIR}"
    assert BINGX.cancel_class(target(client_order_id="c1", notes={**unseeable, "seen": 1})) == f"seen-cid:{PAIR}"
