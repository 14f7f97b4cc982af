"""What the simulated BingX shows of its orders: look-ups, lists, pages, fills, and how far each of them lags."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.simulated_bingx import NOW_MS, PAIR, SPOT, UNKNOWN, Desk, ids_in

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS


@pytest.fixture
def desk() -> Desk:
    return Desk()


# ---- one order


def test_an_order_is_told_in_full(desk: Desk) -> None:
    [order_id] = desk.place(client_id="mine", price="25000", size="0.4", filled="0.1", state="cancelled")
    assert desk.get("query", symbol=PAIR, orderId=order_id).data == {
        "symbol": PAIR,
        "orderId": int(order_id),
        "price": "25000",
        "StopPrice": "0",
        "origQty": "0.4",
        "executedQty": "0.1",
        "cummulativeQuoteQty": "2500",
        "status": "CANCELED",
        "type": "LIMIT",
        "side": "BUY",
        "time": NOW_MS,
        "updateTime": NOW_MS,
        "origQuoteOrderQty": "0",
        "avgPrice": "25000",
        "fee": "0",
        "feeAsset": "BTC",
        "clientOrderID": "mine",
    }


@pytest.mark.parametrize(
    ("kind", "state", "word", "type_word"),
    [
        ("order", "live", "PENDING", "LIMIT"),
        ("order", "partially_filled", "PARTIALLY_FILLED", "LIMIT"),
        ("order", "filled", "FILLED", "LIMIT"),
        ("order", "cancelled", "CANCELED", "LIMIT"),
        ("order", "failed", "FAILED", "LIMIT"),
        ("plan", "live", "NEW", "TRIGGER_LIMIT"),
        ("plan", "triggered", "FILLED", "TRIGGER_LIMIT"),
        ("tpsl", "triggered", "FILLED", "TAKE_STOP_LIMIT"),
        ("tpsl", "cancelled", "CANCELED", "TAKE_STOP_LIMIT"),
    ],
)
def test_each_state_has_its_word_and_each_kind_its_type(
    desk: Desk, kind: str, state: str, word: str, type_word: str
) -> None:
    trigger_price = "" if kind == "order" else "90"
    [order_id] = desk.place(kind=kind, state=state, trigger_price=trigger_price)
    row = desk.get("query", symbol=PAIR, orderId=order_id).data
    assert (row["status"], row["type"], row["StopPrice"]) == (word, type_word, trigger_price or "0")


def test_words_that_no_source_settles_can_be_chosen() -> None:
    desk = Desk(bingx_partial="PENDING", bingx_triggered="TRIGGERED")
    partly, fired = desk.place(state="partially_filled") + desk.place(kind="plan", state="triggered")
    row = desk.get("query", symbol=PAIR, orderId=partly).data
    assert (row["status"], row["executedQty"]) == ("PENDING", "0.5")
    assert desk.get("query", symbol=PAIR, orderId=fired).data["status"] == "TRIGGERED"


@pytest.mark.parametrize(
    ("setting", "code", "told"), [("100404", 100404, " order not exist"), ("100204", 100204, "no data")]
)
def test_an_unknown_order_is_an_error_of_either_code(setting: str, code: int, told: str) -> None:
    desk = Desk(bingx_unknown_order=setting)
    [elsewhere] = desk.place(symbol="ETH-USDT")
    for order_id in (UNKNOWN, elsewhere):
        answer = desk.get("query", symbol=PAIR, orderId=order_id)
        assert (answer.status, answer.code, answer.msg, answer.data) == (200, code, told, None)


def test_an_order_is_found_by_its_client_id_for_two_hours(desk: Desk) -> None:
    [order_id] = desk.place(client_id="mine")
    desk.clock.advance(ms=2 * HOUR_MS)
    assert desk.get("query", symbol=PAIR, clientOrderID="mine").data["orderId"] == int(order_id)
    desk.clock.advance(ms=1)
    assert desk.get("query", symbol=PAIR, clientOrderID="mine").code == 100404
    assert desk.get("query", symbol=PAIR, orderId=order_id).code == 0
    assert desk.get("query", symbol=PAIR).code == 100400


def test_a_look_up_may_forget_what_has_ended() -> None:
    desk = Desk(bingx_query_kept_ms=60_000)
    ended, live = desk.place(count=2)
    desk.cancel(ended)
    desk.clock.advance(ms=60_000)
    assert desk.get("query", symbol=PAIR, orderId=ended).code == 0
    desk.clock.advance(ms=1)
    assert desk.get("query", symbol=PAIR, orderId=ended).code == 100404
    assert desk.get("query", symbol=PAIR, orderId=live).code == 0
    assert ids_in(desk.get("historyOrders")) == [ended]


def test_a_look_up_may_lag() -> None:
    desk = Desk(info_lag_ms=1_000)
    [order_id] = desk.place()
    assert desk.get("query", symbol=PAIR, orderId=order_id).code == 100404
    desk.clock.advance(ms=1_000)
    desk.cancel(order_id)
    assert desk.get("query", symbol=PAIR, orderId=order_id).data["status"] == "PENDING"
    desk.clock.advance(ms=1_000)
    assert desk.get("query", symbol=PAIR, orderId=order_id).data["status"] == "CANCELED"


# ---- open orders


def test_open_orders_of_all_kinds_are_listed_newest_first(desk: Desk) -> None:
    normal = desk.place(client_id="mine")
    others = desk.place(kind="plan") + desk.place(kind="tpsl", symbol="ETH-USDT")
    desk.place(state="cancelled")
    answer = desk.get("openOrders")
    assert ids_in(answer) == (normal + others)[::-1]
    assert (answer.data["orders"][-1]["clientOrderID"], answer.data["orders"][-1]["fee"]) == ("mine", 0)
    assert ids_in(desk.get("openOrders", symbol="ETH-USDT")) == others[1:]
    assert desk.get("openOrders", symbol="ETHUSDT").code == 100400


def test_rows_of_a_list_may_lack_the_client_id() -> None:
    desk = Desk(bingx_list_client_ids=False)
    [order_id] = desk.place(client_id="mine")
    [row] = desk.get("openOrders").data["orders"]
    assert "clientOrderID" not in row
    assert desk.get("query", symbol=PAIR, orderId=order_id).data["clientOrderID"] == "mine"


def test_more_open_orders_than_a_list_holds_are_left_out_without_a_word() -> None:
    desk = Desk()
    ids = desk.place(count=2_003)
    assert ids_in(desk.get("openOrders", symbol=PAIR)) == ids[:2:-1]
    desk.simulator.configure({"bingx_open_most": 2})
    assert ids_in(desk.get("openOrders")) == ids[:-3:-1]


def test_open_orders_may_still_list_what_was_cancelled() -> None:
    desk = Desk(open_lag_ms=1_000)
    [order_id] = desk.place()
    assert ids_in(desk.get("openOrders")) == []
    desk.clock.advance(ms=1_000)
    desk.cancel(order_id)
    desk.clock.advance(ms=999)
    [row] = desk.get("openOrders").data["orders"]
    assert (row["orderId"], row["status"]) == (int(order_id), "PENDING")
    desk.clock.advance(ms=1)
    assert ids_in(desk.get("openOrders")) == []


# ---- history


def test_an_order_id_is_where_the_history_begins_and_no_filter(desk: Desk) -> None:
    ids = desk.place(count=5, state="cancelled")
    assert ids_in(desk.get("historyOrders", symbol=PAIR)) == ids[::-1]
    assert ids_in(desk.get("historyOrders", symbol=PAIR, orderId=ids[2])) == ids[:1:-1]
    # One in between that does not exist begins at the next.
    assert ids_in(desk.get("historyOrders", symbol=PAIR, orderId=int(ids[2]) + 1)) == ids[:2:-1]


def test_the_first_page_may_hold_the_oldest_instead() -> None:
    desk = Desk(bingx_history_order="oldest")
    ids = desk.place(count=5, state="cancelled")
    assert ids_in(desk.get("historyOrders", orderId=ids[1], pageSize=2)) == ids[1:3]
    assert ids_in(desk.get("historyOrders", orderId=ids[1], pageSize=2, pageIndex=2)) == ids[3:]


@given(sizes=st.lists(st.integers(1, 7), min_size=1, max_size=3), count=st.integers(0, 23))
def test_pages_of_any_size_show_everything_once(sizes: list[int], count: int) -> None:
    desk = Desk()
    ids = desk.place(count=count, state="filled")
    for size in sizes:
        seen: list[str] = []
        index = 1
        while page := ids_in(desk.get("historyOrders", pageIndex=index, pageSize=size)):
            assert len(page) == min(size, count - len(seen))
            seen += page
            index += 1
        assert seen == ids[::-1]


def test_the_history_is_filtered_by_status_type_and_time(desk: Desk) -> None:
    filled = desk.place(state="filled", created_ms=NOW_MS - 3_000)
    cancelled = desk.place(state="cancelled", created_ms=NOW_MS - 2_000)
    failed = desk.place(state="failed", created_ms=NOW_MS - 1_000)
    plan = desk.place(kind="plan", state="cancelled")
    desk.place()
    assert ids_in(desk.get("historyOrders")) == plan + failed + cancelled + filled
    assert ids_in(desk.get("historyOrders", status="FILLED")) == filled
    assert ids_in(desk.get("historyOrders", status="CANCELED")) == plan + cancelled
    assert ids_in(desk.get("historyOrders", status="FAILED")) == failed
    assert ids_in(desk.get("historyOrders", type="TRIGGER_LIMIT")) == plan
    assert ids_in(desk.get("historyOrders", startTime=NOW_MS - 2_000, endTime=NOW_MS - 1_000)) == failed + cancelled
    assert ids_in(desk.get("historyOrders", symbol="ETH-USDT")) == []


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"pageIndex": 0}, 100400),
        ({"pageSize": 0}, 100400),
        ({"pageSize": 101}, 100400),
        ({"pageIndex": 100, "pageSize": 100}, 0),
        ({"pageIndex": 101, "pageSize": 100}, 100400),
        ({"pageIndex": "x"}, 100400),
        ({"status": "PENDING"}, 100400),
        ({"orderId": "x"}, 100400),
    ],
)
def test_pages_reach_as_far_as_ten_thousand_orders(desk: Desk, params: dict[str, object], code: int) -> None:
    assert desk.get("historyOrders", **params).code == code


def test_the_history_may_lag() -> None:
    desk = Desk(history_lag_ms=1_000)
    [order_id] = desk.place()
    desk.cancel(order_id)
    assert ids_in(desk.get("historyOrders")) == []
    desk.clock.advance(ms=1_000)
    assert ids_in(desk.get("historyOrders")) == [order_id]


# ---- fills


def test_fills_of_the_last_day_are_told_oldest_first(desk: Desk) -> None:
    desk.place(state="filled", created_ms=NOW_MS - DAY_MS - 1)
    [order_id] = desk.place(size="0.5", price="20000", side="sell")
    desk.move(order_id, "partially_filled", "0.2")
    desk.move(order_id, "filled")
    first, second = desk.get("myTrades", symbol=PAIR).data["fills"]
    assert first["id"] < second["id"]
    assert (first["orderId"], first["qty"], first["quoteQty"], first["price"]) == (
        int(order_id),
        "0.2",
        "4000",
        "20000",
    )
    assert (second["qty"], second["isBuyer"], second["commissionAsset"]) == ("0.3", False, "USDT")
    assert desk.get("myTrades").code == 100400


def test_fills_may_be_asked_for_by_order_time_and_number(desk: Desk) -> None:
    old, new = (
        desk.place(state="filled", created_ms=NOW_MS - 3 * DAY_MS),
        desk.place(state="filled", created_ms=NOW_MS - 1),
    )
    desk.place(state="filled", created_ms=NOW_MS - 8 * DAY_MS)

    def orders(**params: object) -> list[str]:
        return [str(fill["orderId"]) for fill in desk.get("myTrades", symbol=PAIR, **params).data["fills"]]

    assert orders() == new
    assert orders(startTime=NOW_MS - 9 * DAY_MS) == old + new
    assert orders(startTime=NOW_MS - 9 * DAY_MS, endTime=NOW_MS - DAY_MS) == old
    assert orders(startTime=NOW_MS - 9 * DAY_MS, limit=1) == new
    assert orders(startTime=NOW_MS - 9 * DAY_MS, orderId=old[0]) == old
    last = desk.get("myTrades", symbol=PAIR).data["fills"][0]["id"]
    assert orders(startTime=NOW_MS - 9 * DAY_MS, fromId=last) == new


def test_the_pairs_are_spelt_with_a_hyphen(desk: Desk) -> None:
    told = desk.send("GET", f"{SPOT}/common/symbols", key="").data["symbols"]
    assert [row["symbol"] for row in told] == list(desk.simulator.core.settings.pairs)
    assert {row["status"] for row in told} == {1}
