"""The control API and the server around it: prepare, disturb, and read the truth over HTTP."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from cancelq_worker.simulator import RunningSimulator, Simulator, serve
from tests.unit.test_simulator_desk import TRADE, signed_headers


@pytest.fixture
async def server() -> AsyncIterator[RunningSimulator]:
    async with serve(Simulator()) as running:
        yield running


@pytest.fixture
async def client(server: RunningSimulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=server.base_url, trust_env=False, timeout=5) as client:
        yield client


async def told(client: httpx.AsyncClient, path: str, body: Any = None, status: int = 200) -> Any:
    answer = await (client.get(path) if body is None else client.post(path, json=body))
    assert answer.status_code == status, answer.text
    return answer.json()


async def ask(client: httpx.AsyncClient, target: str, **headers: str) -> httpx.Response:
    signed = signed_headers("GET", target, b"", time.time_ns() // 1_000_000)
    return await client.get(target, headers=signed | headers)


async def test_orders_are_made_by_hundreds_and_one_by_one(client: httpx.AsyncClient) -> None:
    many = await told(client, "/sim/orders", {"count": 300, "client_prefix": "q", "like": {"price": "7"}})
    assert [order["client_id"] for order in many["orders"]] == [f"q{number}" for number in range(300)]
    ids = [order["order_id"] for order in many["orders"]]
    assert ids == sorted(ids)
    wanted = [
        {"order_id": "42", "symbol": "ETHUSDT", "client_id": "mine"},
        {"kind": "plan", "state": "triggered"},
        {"kind": "tpsl"},
        {"state": "partially_filled", "size": "3", "filled": "1.5"},
        {"state": "cancelled", "filled": "0.5", "created_ms": 1_699_000_000_000, "closed_ms": 1_699_000_009_000},
    ]
    some = (await told(client, "/sim/orders", {"orders": wanted}))["orders"]
    assert some[0]["order_id"] == "42"
    truth = (await told(client, "/sim/truth?ids=" + ",".join(order["order_id"] for order in some)))["orders"]
    assert [order["state"] for order in truth] == [
        "live",
        "triggered",
        "live",
        "partially_filled",
        "cancelled",
    ]
    assert truth[1]["child_id"] == some[1]["child_id"] != ""
    assert truth[3]["filled"] == "1.5"
    assert (truth[4]["created_us"], truth[4]["closed_us"]) == (1_699_000_000_000_000, 1_699_000_009_000_000)
    page = await told(client, "/sim/truth?after=300&limit=3")
    assert [order["order_id"] for order in page["orders"]] == [
        some[0]["order_id"],
        some[1]["order_id"],
        some[1]["child_id"],
    ]
    assert page["next"] == 303


async def test_the_truth_is_paged_over_all_accounts(client: httpx.AsyncClient) -> None:
    for uid in ("1", "2", "3"):
        await told(client, "/sim/orders", {"uid": uid, "count": 4})
    told_uids, after = [], 0
    while page := (await told(client, f"/sim/truth?after={after}&limit=5"))["orders"]:
        told_uids += [order["uid"] for order in page]
        after += len(page)
    assert told_uids == ["1"] * 4 + ["2"] * 4 + ["3"] * 4
    assert len((await told(client, "/sim/truth?uid=2&limit=3"))["orders"]) == 3


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("orders", {"orders": [{"symbol": "NOPE"}]}, "symbol"),
        ("orders", {"orders": [{"order_id": "x"}]}, "order_id"),
        ("orders", {"orders": [{"order_id": "7"}, {"order_id": "7"}]}, "order_id"),
        ("orders", {"orders": [{"client_id": 'a"b'}]}, "client_id"),
        ("orders", {"orders": [{"state": "triggered"}]}, "state"),
        ("orders", {"orders": [{"state": "partially_filled", "filled": "2"}]}, "filled"),
        ("orders", {"orders": [{"filled": "0.5"}]}, "filled"),
        ("orders", {"venue": "nyse", "orders": [{}]}, "venue"),
        ("orders", {"oders": []}, "oders"),
        ("moves", {"moves": [{"order_id": "1", "state": "filled"}]}, "order_id"),
        ("accounts", {"key": "k", "secret": "s"}, "uid"),
        ("settings", {"cancel_dealy_ms": 5}, "cancel_dealy_ms"),
        ("settings", {"limits": {"bitget/cancel": 1}}, "limits"),
        ("settings", {"race_fill": 2}, "race_fill"),
        ("settings", [], ""),
        ("faults", {"kind": "nonsense"}, "kind"),
    ],
)
async def test_a_mistake_is_told_by_its_field(client: httpx.AsyncClient, path: str, body: Any, named: str) -> None:
    assert named in (await told(client, f"/sim/{path}", body, status=400))["error"]


async def test_what_is_not_json_is_told_too(client: httpx.AsyncClient) -> None:
    for path in ("orders", "settings"):
        assert (await client.post(f"/sim/{path}", content=b"{")).status_code == 400


async def test_an_account_can_be_added(client: httpx.AsyncClient) -> None:
    body = {"key": "k", "secret": "s", "passphrase": "p", "uid": "77", "demo": True}
    assert await told(client, "/sim/accounts", body) == {"venue": "bitget", "uid": "77"}
    await told(client, "/sim/orders", {"uid": "77", "count": 2})
    target = f"{TRADE}/unfilled-orders"
    headers = signed_headers("GET", target, b"", time.time_ns() // 1_000_000, key="k", secret="s", passphrase="p")
    data = (await client.get(target, headers=headers | {"paptrading": "1"})).json()["data"]
    assert [row["userId"] for row in data] == ["77", "77"]


async def test_a_key_can_be_given_other_rights(client: httpx.AsyncClient) -> None:
    account = {"key": "sim-key", "secret": "sim-secret", "passphrase": "sim-pass", "uid": "1000"}
    held = (await ask(client, "/api/v2/spot/account/info")).json()["data"]
    assert (held["authorities"], held["ips"]) == (["stor", "stow"], "")
    await told(
        client, "/sim/accounts", {**account, "rights": ["withdraw"], "addresses": ["203.0.113.7", "203.0.113.8"]}
    )
    await told(client, "/sim/settings", {"limits": {"*": None}})
    held = (await ask(client, "/api/v2/spot/account/info")).json()["data"]
    assert (held["authorities"], held["ips"]) == (["stor", "wwow"], "203.0.113.7,203.0.113.8")
    body = b'{"symbol":"BTCUSDT","orderId":"1"}'
    signed = signed_headers("POST", f"{TRADE}/cancel-order", body, time.time_ns() // 1_000_000)
    refused = await client.post(f"{TRADE}/cancel-order", content=body, headers=signed)
    assert refused.json()["code"] == "40014", "it may not trade any more"
    await told(client, "/sim/accounts", {**account, "rights": ["fly"]}, status=400)


async def test_the_market_moves_on_request(client: httpx.AsyncClient) -> None:
    [order] = (await told(client, "/sim/orders", {"orders": [{"kind": "plan"}]}))["orders"]
    moves = {"moves": [{"order_id": order["order_id"], "state": "triggered"}]}
    [moved] = (await told(client, "/sim/moves", moves))["orders"]
    assert moved["state"] == "triggered"
    assert moved["child_id"]
    assert "has ended" in (await told(client, "/sim/moves", moves, status=400))["error"]


async def test_calls_and_rates_are_told_refusals_included(client: httpx.AsyncClient) -> None:
    await told(client, "/sim/settings", {"limits": {"bitget/fills": 2}})
    statuses = [(await ask(client, f"{TRADE}/fills?orderId=5")).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    calls = await told(client, "/sim/calls")
    assert [call["refused"] for call in calls["calls"]] == [False, False, True]
    assert calls["calls"][0] | {"at_us": 0, "steady_us": 0} == {
        "seq": 1,
        "at_us": 0,
        "steady_us": 0,
        "venue": "bitget",
        "endpoint": "fills",
        "method": "GET",
        "ip": "127.0.0.1",
        "uid": "1000",
        "symbol": "",
        "ids": ["5"],
        "code": "00000",
        "http_status": 200,
        "refused": False,
        "executed": True,
        "failed_items": 0,
        "fault": "",
    }
    rest = await told(client, f"/sim/calls?after={calls['next'] - 1}")
    assert [call["seq"] for call in rest["calls"]] == [3]
    [rate] = [rate for rate in (await told(client, "/sim/rates"))["rates"] if rate["bucket"] == "bitget/fills"]
    assert (rate["worst_admitted"], rate["worst_arrived"], rate["refused"]) == (2, 3, 1)


async def test_the_call_log_is_bounded_and_says_what_it_dropped(client: httpx.AsyncClient) -> None:
    await told(client, "/sim/settings", {"calls_kept": 2, "limits": {"*": None}})
    for _ in range(5):
        await ask(client, f"{TRADE}/fills")
    calls = await told(client, "/sim/calls?after=1")
    assert ([call["seq"] for call in calls["calls"]], calls["dropped"], calls["next"]) == ([4, 5], 2, 5)
    assert (await told(client, "/sim/calls?after=5"))["calls"] == []


async def test_an_address_can_be_claimed_by_header(client: httpx.AsyncClient) -> None:
    await ask(client, f"{TRADE}/fills", **{"X-Forwarded-For": "10.0.0.9, 10.0.0.1"})
    assert (await told(client, "/sim/calls"))["calls"][0]["ip"] == "10.0.0.9"


async def test_faults_are_ordered_listed_and_dropped(client: httpx.AsyncClient) -> None:
    assert await told(client, "/sim/faults", {"kind": "http_500", "endpoint": "fills"}) == {"id": 1}
    await told(client, "/sim/faults", {"kind": "drop", "count": None})
    assert (await ask(client, f"{TRADE}/fills")).status_code == 500
    faults = (await told(client, "/sim/faults"))["faults"]
    assert [(fault["id"], fault["hits"], fault["left"]) for fault in faults] == [(1, 1, 0), (2, 0, None)]
    assert (await client.delete("/sim/faults")).status_code == 200
    assert (await ask(client, f"{TRADE}/fills")).status_code == 200


async def test_a_reset_leaves_only_the_accounts(client: httpx.AsyncClient) -> None:
    await told(client, "/sim/accounts", {"key": "k", "secret": "s", "uid": "77"})
    await told(client, "/sim/orders", {"count": 2})
    await told(client, "/sim/settings", {"race_fill": 1, "limits": {"bitget/fills": 0}})
    await told(client, "/sim/faults", {"kind": "drop"})
    await told(client, "/sim/reset", {})
    assert (await told(client, "/sim/truth"))["orders"] == []
    assert await told(client, "/sim/calls") == {"calls": [], "next": 0, "dropped": 0}
    assert (await told(client, "/sim/settings"))["race_fill"] == 0
    assert (await ask(client, f"{TRADE}/fills")).status_code == 200


async def test_the_way_there_and_back_takes_its_time(client: httpx.AsyncClient) -> None:
    await told(client, "/sim/settings", {"latency_before_ms": [15, 20], "latency_after_ms": [15, 20]})
    sent = time.monotonic_ns() // 1000
    await ask(client, f"{TRADE}/fills")
    assert time.monotonic_ns() // 1000 - sent >= 30_000
    [call] = (await told(client, "/sim/calls"))["calls"]
    assert call["steady_us"] - sent >= 15_000


async def test_many_calls_on_many_connections(server: RunningSimulator, client: httpx.AsyncClient) -> None:
    await told(client, "/sim/settings", {"limits": {"*": None}})
    answers = await asyncio.gather(*(ask(client, f"{TRADE}/fills") for _ in range(100)))
    assert {answer.status_code for answer in answers} == {200}
    assert server.simulator.calls().next == 100


async def test_a_body_without_end_is_turned_away(client: httpx.AsyncClient) -> None:
    answer = await client.post(f"{TRADE}/cancel-order", content=b"x" * 2_000_000)
    assert answer.status_code == 413


async def test_a_taken_port_is_an_error(server: RunningSimulator) -> None:
    with pytest.raises(OSError, match="in use"):
        async with serve(Simulator(), port=server.port):
            pass


def test_the_command_tells_where_it_listens_and_stops_on_term() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    code = f"from cancelq_worker.simulator import run; run({port})"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    try:
        lines = [process.stdout.readline() for _ in range(3)]
        assert f"http://127.0.0.1:{port}" in lines[0]
        assert "key sim-key, secret sim-secret, passphrase sim-pass, uid 1000" in lines[2]
        assert httpx.get(f"http://127.0.0.1:{port}/api/v2/public/time", trust_env=False).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
