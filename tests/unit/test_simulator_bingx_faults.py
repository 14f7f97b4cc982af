"""Misbehaviour on order at the simulated BingX, in its own words, and whether the order was cancelled all the same."""

import random
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from cancelq_worker.simulator import Entry, Fault, RunningSimulator, Settings, Simulator, serve
from tests.unit.simulated_bingx import PAIR, TRADE, Desk, ids_in, signed_query


@pytest.fixture
async def server() -> AsyncIterator[RunningSimulator]:
    simulator = Simulator(rng=random.Random(1), settings=Settings(limits={"*": None}))
    async with serve(simulator) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=5) as client:
        yield client


def place(server: RunningSimulator) -> str:
    return server.simulator.add_order(Entry(symbol=PAIR), venue="bingx").order_id


def state(server: RunningSimulator, order_id: str) -> str:
    return str(server.simulator.truth_of([order_id], venue="bingx").entries[0]["state"])


async def cancel(client: httpx.AsyncClient, order_id: str, **more: Any) -> httpx.Response:
    query = signed_query({"symbol": PAIR, "orderId": order_id, "timestamp": time.time_ns() // 1_000_000})
    return await client.post(f"{TRADE}/cancel?{query.decode()}", headers={"X-BX-APIKEY": "sim-key"}, **more)


@pytest.mark.parametrize(
    ("kind", "status", "page", "code", "executed"),
    [
        ("http_500", 500, b"<html", "", False),
        ("http_500_executed", 500, b"<html", "0", True),
        ("html_200", 200, b"<!DOCTYPE html", "", False),
        ("html_502", 502, b"<html", "", False),
        ("http:418", 418, b"<html", "", False),
        ("http_429", 429, b'{"code":100410,"msg":"rate limited"', "100410", False),
        ("code:100410", 200, b'{"code":100410,"msg":"rate limited"', "100410", False),
        ("code:100410:The current system is busy", 200, b'{"code":100410,"msg":"The current', "100410", False),
        ("code:100404", 200, b'{"code":100404,"msg":" order not exist","debugMsg":""}', "100404", False),
        ("code:100421:cancel fail, order not exist", 200, b'{"code":100421,"msg":"cancel fail, ', "100421", False),
        ("code:109429:can retry after time: 1700000000000", 200, b'{"code":109429,"msg":"can retry', "109429", False),
        ("code:100421", 200, b'{"code":100421,"msg":"Null timestamp', "100421", False),
        ("unknown_code", 200, b'{"code":199987', "199987", False),
        ("empty_200", 200, b"", "", False),
        ("garbage_200", 200, b'{"code":', "", False),
    ],
)
async def test_an_answer_of_another_kind(
    server: RunningSimulator,
    client: httpx.AsyncClient,
    kind: str,
    status: int,
    page: bytes,
    code: str,
    executed: bool,
) -> None:
    order_id = place(server)
    server.simulator.add_fault(Fault(kind, endpoint="bingx/cancel"))
    answer = await cancel(client, order_id)
    assert answer.status_code == status
    assert answer.content.startswith(page)
    assert len(answer.content) > 0 or not page
    assert state(server, order_id) == ("cancelled" if executed else "live")
    [call] = server.simulator.calls().entries
    assert (call["fault"], call["executed"], call["http_status"], call["code"]) == (kind, executed, status, code)
    assert (call["ids"], call["symbol"], call["endpoint"]) == ([order_id], PAIR, "cancel")


@pytest.mark.parametrize(
    ("kind", "error", "executed"),
    [
        ("drop", httpx.RemoteProtocolError, False),
        ("execute_and_drop", httpx.RemoteProtocolError, True),
        ("reset", httpx.ReadError, False),
        ("half_body", httpx.RemoteProtocolError, True),
    ],
)
async def test_an_answer_that_does_not_arrive(
    server: RunningSimulator,
    client: httpx.AsyncClient,
    kind: str,
    error: type[httpx.HTTPError],
    executed: bool,
) -> None:
    order_id = place(server)
    server.simulator.add_fault(Fault(kind))
    with pytest.raises(error):
        await cancel(client, order_id)
    assert state(server, order_id) == ("cancelled" if executed else "live")
    assert (await cancel(client, place(server))).json()["code"] == 0


def test_late_answers_and_the_venues_own_words_carry_its_limit_headers_but_the_pages_of_gateways_do_not() -> None:
    desk = Desk(limited=True)

    def headers(kind: str) -> tuple[int, int] | None:
        desk.simulator.add_fault(Fault(kind, delay_ms=300))
        return desk.get("openOrders").limit_headers

    assert headers("late_ms") == (9, 700)
    assert headers("code:100500") == (8, 700)
    assert headers("http_429") == (7, 700)
    assert headers("html_502") is headers("http:503") is None


def test_a_late_call_is_executed_late() -> None:
    desk = Desk()
    [order_id] = desk.place()
    desk.simulator.add_fault(Fault("late_ms", delay_ms=700))
    before_us = desk.clock.wall_us()
    answer = desk.cancel(order_id)
    assert (answer.code, answer.data["status"]) == (0, "CANCELED")
    assert desk.truth(order_id)["closed_us"] == before_us + 700_000


def test_rows_may_be_about_other_orders_missing_or_repeated() -> None:
    desk = Desk()
    ids = desk.place(count=5)

    def listed(kind: str) -> list[str]:
        desk.simulator.add_fault(Fault(kind, endpoint="openOrders"))
        return ids_in(desk.get("openOrders"))

    assert listed("wrong_ids") == [str(int(one) + 7) for one in reversed(ids)]
    assert len(listed("missing_items")) == 2
    assert len(listed("repeat_items")) == 7
    desk.simulator.add_fault(Fault("wrong_ids"))
    assert desk.cancel(ids[0]).data["orderId"] == int(ids[0]) + 7
    assert desk.state(ids[0]) == "cancelled"


def test_a_fault_may_hit_the_call_that_names_an_order_among_others() -> None:
    desk = Desk()
    first, second = desk.place(client_id="a") + desk.place(client_id="b")
    desk.simulator.add_fault(Fault("http_500", order_id=second, count=2))
    desk.simulator.add_fault(Fault("http_500", order_id="b"))
    assert desk.cancel(first).status == 200
    assert desk.post("cancelOrders", symbol=PAIR, orderIds=f"{first},{second}", process=1).status == 500
    assert desk.get("query", symbol=PAIR, orderId=second).status == 500
    assert desk.post("cancelOrders", symbol=PAIR, clientOrderIDs="a,b").status == 500
    assert desk.get("query", symbol=PAIR, clientOrderID="b").status == 200


def test_a_fault_counts_neither_as_an_error_of_the_lock_nor_beyond_a_limit() -> None:
    desk = Desk(limited=True, limits={"*": None, "bingx/openOrders": 1})
    desk.simulator.add_fault(Fault("code:100404", endpoint="cancel", count=25))
    [order_id] = desk.place()
    assert [desk.cancel(order_id).code for _ in range(26)] == [100404] * 25 + [0]
    desk.simulator.add_fault(Fault("http_500", count=2))
    assert [desk.get("openOrders").status for _ in range(2)] == [500, 200]
    assert desk.simulator.core.faults.listed()[-1].count == 1
