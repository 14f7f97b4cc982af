"""Every way to cancel at the simulated BingX, with the answer's shape and what is true afterwards."""

from typing import Any

import pytest

from tests.unit.simulated_bingx import NOW_MS, PAIR, UNKNOWN, Desk, ids_in

DEAD = "the order you want to cancel is FILLED or CANCELLED already, or is not a valid order id ,please verify"
TWO_HOURS_MS = 7_200_000


@pytest.fixture
def desk() -> Desk:
    return Desk()


def batch(desk: Desk, ids: list[str], *, process: int | None = 1, name: str = "orderIds", **params: Any) -> Any:
    return desk.post("cancelOrders", **{"symbol": PAIR, name: ",".join(ids), "process": process, **params})


# ---- one order


def test_the_answer_to_a_cancel_is_the_cancelled_order(desk: Desk) -> None:
    [order_id] = desk.place(client_id="mine", price="0.1532", size="126")
    answer = desk.cancel(order_id)
    assert (answer.status, answer.code, answer.msg) == (200, 0, "")
    assert answer.data == {
        "symbol": PAIR,
        "orderId": int(order_id),
        "price": "0.1532",
        "stopPrice": "0.1532",
        "origQty": "126",
        "executedQty": "0",
        "cummulativeQuoteQty": "0",
        "status": "CANCELED",
        "type": "LIMIT",
        "side": "BUY",
        "transactTime": NOW_MS,
        "clientOrderID": "mine",
    }
    truth = desk.truth(order_id)
    assert truth["state"] == "cancelled"
    assert truth["cancels"] == [{"call": 1, "at_us": NOW_MS * 1000, "verdict": "accepted"}]


def test_an_id_is_a_number_of_nineteen_digits_to_the_last_one(desk: Desk) -> None:
    [order_id] = desk.place(order_id="1735964079647111281")
    answer = desk.cancel(order_id)
    assert b'"orderId":1735964079647111281,' in answer.reply.body
    # Which is more than a double can hold.
    assert int(float(order_id)) != int(order_id)


def test_a_part_that_had_filled_is_told(desk: Desk) -> None:
    [order_id] = desk.place(size="5.9", price="0.5")
    desk.move(order_id, "partially_filled", "1.1")
    row = desk.cancel(order_id).data
    assert (row["status"], row["executedQty"], row["cummulativeQuoteQty"]) == ("CANCELED", "1.1", "0.55")


def test_the_word_for_a_cancelled_order_may_be_spelt_otherwise() -> None:
    desk = Desk(bingx_cancelled="CANCELLED")
    assert desk.cancel(desk.place()[0]).data["status"] == "CANCELLED"


def test_an_order_can_be_named_by_its_client_id_for_two_hours(desk: Desk) -> None:
    [young], [old] = (
        desk.place(client_id="young", created_ms=NOW_MS - TWO_HOURS_MS),
        desk.place(client_id="old", created_ms=NOW_MS - TWO_HOURS_MS - 1),
    )
    assert desk.post("cancel", symbol=PAIR, clientOrderID="young").data["orderId"] == int(young)
    answer = desk.post("cancel", symbol=PAIR, clientOrderID="old")
    assert (answer.code, answer.msg) == (100404, " order not exist")
    assert (desk.state(young), desk.state(old)) == ("cancelled", "live")
    assert desk.cancel(old).code == 0


@pytest.mark.parametrize("kind", ["tpsl", "plan"])
def test_trigger_orders_share_ids_and_endpoint_with_normal_ones(desk: Desk, kind: str) -> None:
    [order_id] = desk.place(kind=kind, trigger_price="90", price="89", client_id="t")
    row = desk.cancel(order_id).data
    word = {"tpsl": "TAKE_STOP_LIMIT", "plan": "TRIGGER_LIMIT"}[kind]
    assert (row["type"], row["price"], row["stopPrice"], row["status"]) == (word, "89", "90", "CANCELED")
    [other] = desk.place(kind=kind, trigger_price="90", client_id="u", order_type="market")
    row = desk.post("cancel", symbol=PAIR, clientOrderID="u").data
    assert (row["orderId"], row["type"]) == (int(other), word.replace("LIMIT", "MARKET"))


@pytest.mark.parametrize(
    ("params", "code", "told"),
    [
        ({"symbol": PAIR, "orderId": UNKNOWN}, 100404, " order not exist"),
        ({"symbol": PAIR, "clientOrderID": "nobody"}, 100404, " order not exist"),
        ({"symbol": "BTCUSDT", "orderId": UNKNOWN}, 100400, "Field validation for 'Symbol' failed"),
        ({"symbol": "btc-usdt", "orderId": UNKNOWN}, 100400, "Field validation for 'Symbol' failed"),
        ({"symbol": "NOPE-USDT", "orderId": UNKNOWN}, 100421, "contract not exist"),
        ({"orderId": UNKNOWN}, 100400, "Field validation for 'Symbol' failed"),
        ({"symbol": PAIR}, 100400, "Field validation for 'OrderID' failed"),
        ({"symbol": PAIR, "clientOrderId": "mine"}, 100400, "Field validation for 'OrderID' failed"),
        ({"symbol": PAIR, "orderId": "abc"}, 100400, "orderId: mismatch type"),
        ({"symbol": PAIR, "orderId": "9223372036854775808"}, 100400, "orderId: mismatch type"),
        ({"symbol": PAIR, "orderId": "9" * 5_000}, 100400, "orderId: mismatch type"),
        ({"symbol": PAIR, "orderId": "0"}, 100400, "orderId: mismatch type"),
        ({"symbol": PAIR, "orderId": "1.7e18"}, 100400, "orderId: mismatch type"),
        ({"symbol": PAIR, "orderId": "1", "cancelRestrictions": "x"}, 100400, "'CancelRestrictions' failed"),
    ],
)
def test_what_cannot_be_cancelled_is_refused_with_a_code_and_a_text(
    desk: Desk, params: dict[str, str], code: int, told: str
) -> None:
    answer = desk.post("cancel", **params)
    assert (answer.status, answer.code, answer.data) == (200, code, None)
    assert told in answer.msg


def test_an_order_is_looked_for_in_the_pair_that_is_named(desk: Desk) -> None:
    [order_id] = desk.place(symbol="ETH-USDT")
    assert desk.cancel(order_id).code == 100404
    assert desk.truth(order_id)["cancels"][0]["verdict"] == "not_here"
    [named] = desk.place(symbol="ETH-USDT", client_id="c")
    assert desk.post("cancel", symbol=PAIR, clientOrderID="c").code == 100404
    assert desk.truth(named)["cancels"][0]["verdict"] == "not_here"
    assert desk.cancel(order_id, symbol="ETH-USDT").code == 0


@pytest.mark.parametrize(
    ("setting", "unknown", "closed"),
    [
        ("mixed", (100404, " order not exist"), (100400, DEAD)),
        ("100404", (100404, " order not exist"), (100404, DEAD)),
        ("100400", (100400, DEAD), (100400, DEAD)),
        ("100421", (100421, "cancel fail, order not exist"), (100421, "cancel fail, order not exist")),
    ],
)
@pytest.mark.parametrize("end", ["filled", "cancelled", "failed"])
def test_a_dead_order_is_refused_in_one_of_the_ways_sources_show(
    setting: str, unknown: tuple[int, str], closed: tuple[int, str], end: str
) -> None:
    desk = Desk(bingx_dead_order=setting)
    [order_id] = desk.place(state=end)
    for answer, wanted in ((desk.cancel(UNKNOWN), unknown), (desk.cancel(order_id), closed)):
        assert (answer.code, answer.msg) == wanted


def test_a_second_cancel_may_come_at_once(desk: Desk) -> None:
    [order_id] = desk.place()
    assert desk.cancel(order_id).code == 0
    assert (desk.cancel(order_id).code, desk.cancel(order_id).msg) == (100400, DEAD)


@pytest.mark.parametrize(
    ("kind", "filled", "met"),
    [("order", None, "PENDING"), ("order", "0.5", "PARTIALLY_FILLED"), ("plan", None, "NEW"), ("tpsl", None, "NEW")],
)
def test_a_cancel_can_be_restricted_to_a_status(desk: Desk, kind: str, filled: str | None, met: str) -> None:
    [order_id] = desk.place(kind=kind)
    if filled:
        desk.move(order_id, "partially_filled", filled)
    for wanted in {"NEW", "PENDING", "PARTIALLY_FILLED"} - {met}:
        refused = desk.cancel(order_id, cancelRestrictions=wanted)
        assert (refused.code, desk.truth(order_id)["open"]) == (100400, True)
        assert "cancelRestrictions" in refused.msg
        assert desk.truth(order_id)["cancels"][-1]["verdict"] == "unmet"
    assert desk.cancel(order_id, cancelRestrictions=met).code == 0


def test_an_order_may_be_stuck(desk: Desk) -> None:
    [order_id] = desk.place()
    desk.simulator.configure({"stuck_ids": [order_id]})
    assert desk.cancel(order_id).code == 100500
    assert desk.state(order_id) == "live"


# ---- acknowledged first, executed later


def test_with_a_delay_the_answer_shows_the_order_as_it_still_is() -> None:
    desk = Desk(cancel_delay_ms=500)
    [order_id] = desk.place()
    assert desk.cancel(order_id).data["status"] == "PENDING"
    again = desk.cancel(order_id)
    assert (again.code, again.msg) == (80019, "order is being processed")
    assert desk.state(order_id) == "live"
    desk.clock.advance(ms=500)
    assert desk.get("query", symbol=PAIR, orderId=order_id).data["status"] == "CANCELED"


def test_a_fill_may_come_first() -> None:
    desk = Desk(cancel_delay_ms=500)
    [late], [soon] = desk.place(), desk.place()
    desk.simulator.configure({"race_fill_ids": [late]})
    assert [row["status"] for row in batch(desk, [late, soon]).data["orders"]] == ["PENDING", "PENDING"]
    desk.clock.advance(ms=500)
    assert (desk.state(late), desk.state(soon)) == ("filled", "cancelled")
    desk.simulator.configure({"cancel_delay_ms": 0, "race_fill": 1.0, "race_fill_ids": []})
    [other] = desk.place()
    assert (desk.cancel(other).code, desk.state(other)) == (100400, "filled")


# ---- a batch


def test_a_batch_with_process_1_does_what_it_can(desk: Desk) -> None:
    live, filled, cancelled, elsewhere = (
        desk.place(client_id="l")
        + desk.place(state="filled")
        + desk.place(state="cancelled")
        + desk.place(symbol="ETH-USDT")
    )
    answer = batch(desk, [filled, live, UNKNOWN, cancelled, elsewhere])
    assert (answer.code, ids_in(answer)) == (0, [live])
    assert [row["clientOrderID"] for row in answer.data["orders"]] == ["l"]
    missing = "can not find order for orderId:{} for symbol: BTC-USDT, please verify and retry later"
    ended = "the  orderId:{} order status :{},can not delete, please verify and retry later"
    assert answer.data["fails"] == [
        {"orderId": filled, "error": ended.format(filled, "FILLED")},
        {"orderId": UNKNOWN, "error": missing.format(UNKNOWN)},
        {"orderId": cancelled, "error": ended.format(cancelled, "CANCELED")},
        {"orderId": elsewhere, "error": missing.format(elsewhere)},
    ]
    assert desk.last_call()["failed_items"] == 4
    assert desk.state(elsewhere) == "live"


@pytest.mark.parametrize("process", [None, 0])
@pytest.mark.parametrize(("bad", "code"), [("unknown", 100404), ("closed", 100400)])
def test_without_it_one_bad_id_spoils_the_whole_batch(desk: Desk, process: int | None, bad: str, code: int) -> None:
    live, closed = desk.place() + desk.place(state="cancelled")
    answer = batch(desk, [live, UNKNOWN if bad == "unknown" else closed], process=process)
    assert (answer.code, answer.data) == (code, None)
    assert desk.state(live) == "live"
    answer = batch(desk, [live], process=process)
    assert (ids_in(answer), list(answer.data)) == ([live], ["orders"])


def test_a_batch_may_name_client_ids(desk: Desk) -> None:
    first, second = desk.place(client_id="a_1") + desk.place(client_id="a_2")
    answer = batch(desk, ["a_1", "nobody", "a_2"], name="clientOrderIDs")
    assert ids_in(answer) == [first, second]
    assert [fail["orderId"] for fail in answer.data["fails"]] == ["nobody"]


def test_a_batch_finds_client_ids_for_two_hours(desk: Desk) -> None:
    [old], [young] = desk.place(client_id="old", created_ms=NOW_MS - TWO_HOURS_MS - 1), desk.place(client_id="young")
    answer = batch(desk, ["old", "young"], name="clientOrderIDs")
    assert ids_in(answer) == [young]
    assert [fail["orderId"] for fail in answer.data["fails"]] == ["old"]
    assert desk.state(old) == "live"


@pytest.mark.parametrize(("setting", "code"), [("list", 0), ("top", 100404)])
def test_how_a_batch_is_answered_of_which_nothing_succeeded_can_be_chosen(setting: str, code: int) -> None:
    desk = Desk(bingx_all_failed=setting)
    [live], [dead] = desk.place(), desk.place(state="filled")
    assert batch(desk, [UNKNOWN, dead]).code == code
    assert len(batch(desk, [UNKNOWN, live]).data["fails"]) == 1


def test_ids_may_be_written_as_texts() -> None:
    desk = Desk(bingx_order_ids="text")
    [order_id] = desk.place()
    assert desk.cancel(order_id).data["orderId"] == order_id
    assert desk.get("query", symbol=PAIR, orderId=order_id).data["orderId"] == order_id
    assert [row["orderId"] for row in desk.get("historyOrders").data["orders"]] == [order_id]


def test_an_id_that_is_named_twice_fails_the_second_time(desk: Desk) -> None:
    [order_id] = desk.place()
    answer = batch(desk, [order_id, order_id])
    assert (ids_in(answer), len(answer.data["fails"])) == ([order_id], 1)


@pytest.mark.parametrize(
    ("params", "told"),
    [
        ({"orderIds": ""}, "Field validation for 'OrderIDs' failed"),
        ({"orderIds": ",".join(["1"] * 11)}, "Field validation for 'OrderIDs' failed"),
        ({"clientOrderIDs": ",".join("abcdefghijk")}, "Field validation for 'ClientOrderIDs' failed"),
        ({"orderIds": "1,x"}, "orderIds: mismatch type"),
        ({"orderIds": "1", "process": "2"}, "Field validation for 'Process' failed"),
    ],
)
def test_a_batch_that_cannot_be_read_is_refused_as_a_whole(desk: Desk, params: dict[str, str], told: str) -> None:
    answer = desk.post("cancelOrders", symbol=PAIR, **{"process": "1", **params})
    assert (answer.code, answer.data) == (100400, None)
    assert told in answer.msg


def test_how_many_ids_a_batch_takes_can_be_chosen() -> None:
    desk = Desk(bingx_batch_most=3)
    ids = desk.place(count=4)
    assert batch(desk, ids).code == 100400
    assert ids_in(batch(desk, ids[:3])) == ids[:3]


def test_what_loses_a_race_in_an_all_or_nothing_batch_shows_in_its_row(desk: Desk) -> None:
    first, second = desk.place(count=2)
    desk.simulator.configure({"race_fill_ids": [first]})
    answer = batch(desk, [first, second], process=0)
    assert [row["status"] for row in answer.data["orders"]] == ["FILLED", "CANCELED"]


# ---- all of them


def test_a_whole_pair_or_without_one_the_whole_account_is_cancelled(desk: Desk) -> None:
    mine, others = desk.place(count=3), desk.place(symbol="ETH-USDT", count=2)
    answer = desk.post("cancelOpenOrders", symbol=PAIR)
    assert sorted(ids_in(answer)) == mine
    assert {row["status"] for row in answer.data["orders"]} == {"CANCELED"}
    assert [desk.state(one) for one in others] == ["live", "live"]
    assert sorted(ids_in(desk.post("cancelOpenOrders"))) == others
    assert desk.post("cancelOpenOrders").data == {"orders": []}
    assert desk.post("cancelOpenOrders", symbol="BTCUSDT").code == 100400


@pytest.mark.parametrize("included", [True, False])
def test_whether_trigger_orders_go_along_can_be_chosen(included: bool) -> None:
    desk = Desk(bingx_cancel_all_triggers=included)
    [normal], triggers = desk.place(), desk.place(kind="plan") + desk.place(kind="tpsl")
    assert sorted(ids_in(desk.post("cancelOpenOrders", symbol=PAIR))) == sorted(
        [normal, *triggers] if included else [normal]
    )
    assert {desk.state(one) for one in triggers} == {"cancelled" if included else "live"}


def test_such_a_cancel_may_miss_some() -> None:
    desk = Desk(symbol_cancel_miss=0.5)
    ids = desk.place(count=40)
    told = ids_in(desk.post("cancelOpenOrders", symbol=PAIR))
    assert 0 < len(told) < 40
    assert {one for one in ids if desk.state(one) == "cancelled"} == set(told)


# ---- the switch


def test_the_dead_mans_switch_takes_everything_unless_it_is_set_anew(desk: Desk) -> None:
    ids = desk.place() + desk.place(kind="plan", symbol="ETH-USDT")
    armed = desk.post("cancelAllAfter", type="ACTIVATE", timeOut=10)
    assert armed.data["triggerTime"] == NOW_MS // 1000 + 10
    assert armed.data["status"] == "ACTIVATED"
    assert "2023-11-14 22:13:30 UTC" in armed.data["note"]
    desk.clock.advance(ms=9_999)
    assert desk.post("cancelAllAfter", type="ACTIVATE", timeOut=20).code == 0
    desk.clock.advance(ms=19_999)
    assert {desk.state(one) for one in ids} == {"live"}
    desk.clock.advance(ms=1)
    assert {desk.state(one) for one in ids} == {"cancelled"}


def test_the_switch_can_be_closed(desk: Desk) -> None:
    [order_id] = desk.place()
    desk.post("cancelAllAfter", type="ACTIVATE", timeOut=10)
    assert desk.post("cancelAllAfter", type="CLOSE", timeOut=0).data["status"] == "CLOSED"
    desk.clock.advance(ms=200_000)
    assert desk.state(order_id) == "live"
    for seconds in (9, 121):
        assert desk.post("cancelAllAfter", type="ACTIVATE", timeOut=seconds).code == 100400


def test_a_switch_that_fires_takes_seconds_and_is_refused_meanwhile(desk: Desk) -> None:
    ids = [one for _ in range(70) for one in desk.place()]
    desk.post("cancelAllAfter", type="ACTIVATE", timeOut=10)
    desk.clock.advance(ms=10_000)
    assert [desk.state(one) for one in ids].count("cancelled") == 50
    assert desk.post("cancelAllAfter", type="CLOSE", timeOut=0).code == 100500
    desk.clock.advance(ms=500)
    assert {desk.state(one) for one in ids} == {"cancelled"}
    assert desk.post("cancelAllAfter", type="CLOSE", timeOut=0).code == 0
