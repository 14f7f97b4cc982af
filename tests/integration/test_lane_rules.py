"""The lane's rules, one by one, on a real server and at the simulated venue's door."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import replace

import pytest

from cancelq import AsyncClient, Conflicting
from cancelq.contract import Event, Status
from cancelq_worker import cli, operate
from cancelq_worker.simulator.orders import Right
from cancelq_worker.simulator.simulator import DEMO_KEY
from cancelq_worker.trips import command
from tests.integration.rig import LANE, Rig, desk
from tests.servers import RedisServer


def cancels(rig: Rig) -> list[dict[str, object]]:
    """Cancel calls that reached the venue, in order."""
    return [c for c in rig.simulator.calls().entries if "cancel" in str(c["endpoint"])]


async def test_the_same_id_is_one_cancel_and_its_repeats_are_told(redis_url: str) -> None:
    async with desk(redis_url, workers=2) as rig:
        order_id, other = rig.order(), rig.order()
        await rig.send(id="a-1", symbol="BTCUSDT", order_id=order_id)
        await rig.send(id="a-1", symbol="BTCUSDT", order_id=order_id)
        await rig.final("a-1")
        await rig.send(id="a-1", symbol="BTCUSDT", order_id=other)
        last = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        await rig.final(last)
        repeats = [e for e in await rig.of("a-1") if e.status == Status.duplicate]
        assert [("same content" in (e.detail or ""), "differs" in (e.detail or "")) for e in repeats] == [
            (True, False),
            (False, True),
        ]
        assert rig.truth(other)["state"] == "live"
        assert len([e for e in await rig.of("a-1") if e.final]) == 1


async def test_whoever_waits_for_a_repeat_of_other_content_is_not_told_the_first_ones_outcome(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def submitted(order_id: str) -> tuple[int, str, str]:
        words = ["submit", str(LANE), "--symbol", "BTCUSDT", "--order-id", order_id, "--id", "k", "--wait"]
        code = await asyncio.to_thread(cli.run, words, {"CANCELQ_REDIS_URL": redis_url})
        return code, *capsys.readouterr()

    async with desk(redis_url) as rig, AsyncClient(redis_url) as client:
        await rig.ready()
        order_id, other = rig.order(), rig.order()
        asked = {"symbol": "BTCUSDT", "id": "k"}
        first = await client.submit(LANE, asked | {"order_id": order_id})
        assert (await first.wait(30)).status == Status.cancelled
        again = await client.submit(LANE, asked | {"order_id": order_id})
        assert await again.wait(30) == first.event
        differs = await client.submit(LANE, asked | {"order_id": other})
        with pytest.raises(Conflicting, match="other content, so nothing of this entry was done") as told:
            await client.wait_all([first, differs, again], 30)
        assert (told.value.ids, differs.event, differs.conflicting) == (["k"], None, True)
        assert (first.event, first.conflicting) == (again.event, False)
        code, _, err = await submitted(other)
        assert code == 1
        assert "send it under a new id\nremedy: what became of the first: cancelq results --id k" in err
        assert (await submitted(order_id))[0] == 0
        assert rig.truth(other)["state"] == "live"


async def test_what_expired_with_the_epoch_is_not_sent(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        order_id = rig.order()
        asked = {"symbol": "BTCUSDT", "expires_at_ms": "0"}
        ids = await rig.send_all([asked | {"order_id": order_id}, asked | {"scope": "symbol"}])
        finals = await rig.finals(ids)
        assert {(e.status, e.attempt) for e in finals.values()} == {(Status.expired, 0)}
        assert rig.truth(order_id)["state"] == "live"


async def test_two_intents_for_one_order_share_a_call_and_each_has_its_event(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        order_id = rig.order(client_id="mine")
        named = ({"order_id": order_id}, {"order_id": order_id}, {"client_order_id": "mine"})
        ids = await rig.send_all([{"symbol": "BTCUSDT", **fields} for fields in named])
        finals = await rig.finals(ids)
        assert {e.status for e in finals.values()} == {Status.cancelled}


async def test_a_spoilt_batch_is_halved_until_the_culprit_is_alone(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        ids = [rig.order() for _ in range(12)]
        rig.fault("code:40017", endpoint="batch-cancel-order", order_id=ids[7], count=None)
        rig.fault("code:40017", endpoint="cancel-order", order_id=ids[7], count=None)
        intents = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order_id} for order_id in ids])
        finals = await rig.finals(intents)
        assert [finals[i].status for i in intents].count(Status.cancelled) == 11
        assert finals[intents[7]].status == Status.rejected
        assert finals[intents[7]].code == "40017"


async def test_revoke_withdraws_what_was_not_sent(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        order_id = rig.order()
        later = str(time.time_ns() // 1_000_000 + 60_000)
        timed = await rig.send(id="t-1", symbol="BTCUSDT", order_id=order_id, not_before_ms=later)
        withdraw = await rig.send(scope="revoke", target=timed)
        finals = await rig.finals([timed, withdraw])
        assert {e.status for e in finals.values()} == {Status.revoked}
        assert finals[timed].attempt == 0
        assert rig.truth(order_id)["state"] == "live"
        done = await rig.send(id="t-2", symbol="BTCUSDT", order_id=order_id)
        await rig.final(done)
        late, unknown = await rig.send(scope="revoke", target=done), await rig.send(scope="revoke", target="nobody")
        finals = await rig.finals([late, unknown])
        assert finals[late].status == finals[unknown].status == Status.rejected
        assert "already sent" in (finals[late].detail or "")
        assert "unknown" in (finals[unknown].detail or "")


async def test_times_are_kept(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        now_ms = time.time_ns() // 1_000_000
        first, second = rig.order(), rig.order()
        timed = await rig.send(symbol="BTCUSDT", order_id=first, not_before_ms=str(now_ms + 700))
        expired = await rig.send(symbol="BTCUSDT", order_id=second, expires_at_ms=str(now_ms - 1))
        finals = await rig.finals([timed, expired])
        assert finals[expired].status == Status.expired
        assert rig.truth(second)["state"] == "live"
        assert finals[timed].status == Status.cancelled
        assert (finals[timed].sent_us or 0) >= (now_ms + 700) * 1000


async def test_a_paused_lane_sends_only_what_is_urgent(redis_url: str) -> None:
    async with desk(redis_url, workers=2) as rig:
        await rig.ready()
        await operate.pause(rig.client, LANE, "alice@desk")
        calm, urgent = rig.order(), rig.order()
        waiting = await rig.send(symbol="BTCUSDT", order_id=calm)
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=urgent, priority="urgent"))
        assert event.status == Status.cancelled
        assert rig.truth(calm)["state"] == "live"
        (status,) = await operate.status(rig.client, [LANE])
        assert status.paused
        await operate.resume(rig.client, LANE, "alice@desk")
        assert (await rig.final(waiting)).status == Status.cancelled
        acts = [e.act for e in await rig.events() if e.status == Status.operator]
        assert acts == ["pause", "resume"]


async def test_a_pause_is_ended_while_memory_is_full(redis_server: RedisServer) -> None:
    """What fills it may be what the pause keeps."""
    async with desk(redis_server.url) as rig:
        await rig.ready()
        await operate.pause(rig.client, LANE, "alice")
        id_ = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        async with asyncio.timeout(5):
            while not await rig.client.exists(LANE.key("state")):  # else it is not admitted
                await command(rig.client, "XREAD", "BLOCK", 10, "STREAMS", LANE.results, "$")
        await rig.client.config_set("maxmemory", 1)
        assert "memory is full" in await operate.resume(rig.client, LANE, "alice")
        assert (await rig.final(id_)).status is Status.cancelled


async def test_rq_suspend_holds_normal_cancels_and_not_urgent_ones(redis_url: str) -> None:
    async with desk(redis_url, workers=2) as rig:
        await rig.ready()
        rig.suspended = True
        calm, urgent = rig.order(), rig.order()
        waiting = await rig.send(symbol="BTCUSDT", order_id=calm)
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=urgent, priority="urgent"))
        assert event.status == Status.cancelled
        assert rig.truth(calm)["state"] == "live"
        rig.suspended = False
        assert (await rig.final(waiting)).status == Status.cancelled


async def test_a_refused_key_holds_the_lane_and_loses_nothing(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        order_id = rig.order()
        rig.fault("code:40014", count=None)
        intent = await rig.send(symbol="BTCUSDT", order_id=order_id)
        await _held(rig, "auth")
        rig.simulator.core.faults.clear()
        said = await operate.resume(rig.client, LANE, "bob")
        assert "key" in said
        event = await rig.final(intent)
        assert event.status == Status.cancelled
        assert event.attempt == 1


async def test_resume_waits_for_the_word_on_the_key_and_tells_it(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def resume() -> tuple[int, str, str]:
        code = await asyncio.to_thread(cli.run, ["resume", str(LANE)], {"CANCELQ_REDIS_URL": redis_url})
        return code, *capsys.readouterr()

    def may(*rights: Right) -> None:
        account = rig.simulator.core.accounts[rig.lane.venue, DEMO_KEY]
        rig.simulator.add_account(replace(account, rights=frozenset(rights)))

    async with desk(redis_url, workers=2) as rig:
        rig.fault("code:40014", count=None)
        intent = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        await _held(rig, "auth")
        code, out, err = await resume()
        assert (code, "a worker tries the key" in out) == (77, True)
        assert re.search(r"stays held: the venue refuses its key: 40014 .*\nremedy: mend the key", err)
        rig.simulator.core.faults.clear()
        rig.fault("http_500", count=None)
        code, _, err = await resume()
        assert (code, "its key could not be tried" in err) == (69, True)
        rig.simulator.core.faults.clear()
        may()  # it reads, and may do nothing else
        code, _, err = await resume()
        assert (code, "may not trade spot" in err) == (77, True)
        may(Right.trade)
        code, out, err = await resume()
        assert (code, err) == (0, "")
        assert "bitget:main: the key works, and the lane is open\n" in out
        assert (await rig.final(intent)).status == Status.cancelled
        assert rig.refused() == 0


async def test_a_wrong_clock_is_corrected_once_and_costs_nothing(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        rig.simulator.configure({"clock_offset_ms": 3_600_000})
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        assert event.status == Status.cancelled
        assert event.attempt == 1


async def test_a_refusal_for_the_limit_costs_no_attempt(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        rig.fault("http_429", endpoint="cancel-order", count=2)
        event = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        assert event.status == Status.cancelled
        assert event.attempt == 1


async def test_a_bad_entry_harms_nobody_else(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        bad: list[dict[bytes, bytes]] = [
            {b"symbol": b"BTCUSDT"},
            {b"symbol": b"BTC-USDT", b"order_id": b"1"},
            {b"\xff\xfe": b"\x00", b"order_id": b"1"},
            {b"symbol": b"BTCUSDT", b"order_id": b"1", b"reason": b"x" * 5000},
            {b"symbol": b"BTCUSDT", b"ordr_id": b"1"},
            {b"symbol": b"BTCUSDT", b"order_id": b"1 2\r\n"},
            {b"id": b"12-3", b"symbol": b"BTCUSDT", b"order_id": b"1"},
            {f"x_{n}".encode(): b"" for n in range(700)},
        ]
        order_id = rig.order()
        ids = await rig.send_all([*bad, {"symbol": "BTCUSDT", "order_id": order_id}])
        finals = await rig.finals(ids)
        assert [finals[i].status for i in ids] == [Status.rejected] * len(bad) + [Status.cancelled]
        assert (finals[ids[0]].detail or "").startswith("order_id:")
        assert "'BTCUSDT'" in (finals[ids[1]].detail or "")


async def test_scripts_that_the_server_forgot_are_loaded_again(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
        await rig.client.script_flush()
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))).status == Status.cancelled


async def test_a_full_memory_closes_the_intake_and_nothing_else(redis_server: RedisServer) -> None:
    async with desk(redis_server.url, latency_after_ms=(300, 300)) as rig:
        order_id = rig.order()
        intent = await rig.send(symbol="BTCUSDT", order_id=order_id)
        await rig.calls("cancel-order")
        redis_server.config_set("maxmemory", "1")
        assert (await rig.final(intent)).status == Status.cancelled
        redis_server.config_set("maxmemory", "0")
        assert (await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))).status == Status.cancelled


async def test_a_server_that_dies_and_returns_loses_nothing(redis_server: RedisServer) -> None:
    async with desk(redis_server.url, latency_before_ms=(20, 60)) as rig:
        orders = [rig.order() for _ in range(150)]
        intents = [await rig.send(id=f"d-{n}", symbol="BTCUSDT", order_id=o) for n, o in enumerate(orders)]
        redis_server.kill9()
        before = len(cancels(rig))
        await asyncio.sleep(0.5)
        quiet = len(cancels(rig))
        await asyncio.sleep(0.5)
        assert len(cancels(rig)) == quiet >= before
        redis_server.restart()
        finals = await rig.finals(intents, within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert {rig.truth(o)["state"] for o in orders} == {"cancelled"}
        assert rig.refused() == 0


async def test_a_worker_that_stalls_past_its_lease_changes_nothing(redis_url: str) -> None:
    """The venue answers after the lease: another look has settled the intent meanwhile, once."""
    async with desk(redis_url, env={"CANCELQ_LEASE_MS": "3000"}) as rig:
        rig.fault("hang", endpoint="cancel-order", execute=True)
        intent = await rig.send(symbol="BTCUSDT", order_id=rig.order())
        assert (await rig.final(intent)).status == Status.cancelled


async def test_the_budgets_are_used_and_kept_by_several_workers(redis_url: str) -> None:
    async with desk(redis_url, workers=3, latency_before_ms=(5, 25), latency_after_ms=(5, 25)) as rig:
        orders = [rig.order() for _ in range(2000)]
        ids = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order_id} for order_id in orders])
        finals = await rig.finals(ids, within_s=60)
        assert {e.status for e in finals.values()} == {Status.cancelled}
        assert rig.refused() == 0
        rates = {row["bucket"]: row for row in rig.simulator.rates()}
        assert rates["bitget/batch-cancel-order"]["worst_admitted"] <= 10
        sizes = [e.batch_size for e in finals.values() if e.endpoint and e.endpoint.endswith("batch-cancel-order")]
        assert sum(1 for size in sizes if size == 50) > 0.8 * len(sizes)


async def test_urgent_goes_first(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        bulk = await rig.send_all([{"symbol": "BTCUSDT", "order_id": rig.order()} for _ in range(1500)])
        urgent = await rig.send(symbol="BTCUSDT", order_id=rig.order(), priority="urgent")
        event = await rig.final(urgent)
        later = [e for e in await rig.events() if e.id in set(bulk) and e.final]
        assert len(later) < 750
        assert _waited_ms(event) < 1_000


def _waited_ms(event: Event) -> float:
    return ((event.sent_us or 0) - (event.queued_us or 0)) / 1000


async def _held(rig: Rig, reason: str) -> None:
    async with asyncio.timeout(10):
        while not any(row[1] == reason for row in (await operate.status(rig.client, [LANE]))[0].holds):
            await command(rig.client, "XREAD", "BLOCK", 50, "STREAMS", LANE.results, "$")
