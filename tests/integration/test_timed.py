"""Timed cancels, from the command line and the client to the venue."""

from __future__ import annotations

import asyncio
import json

import pytest

from cancelq import Client
from cancelq.contract import Status
from cancelq_worker import cli
from tests.integration.rig import desk

pytestmark = pytest.mark.one_server


async def test_submit_in_is_sent_not_before(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    async with desk(redis_url, workers=2) as rig:
        await rig.ready()
        order = rig.order()
        capsys.readouterr()
        words = [
            "submit",
            "bitget:main",
            "--symbol",
            "BTCUSDT",
            "--order-id",
            order,
            "--in",
            "800ms",
            "--wait",
            "--json",
        ]
        assert await asyncio.to_thread(cli.run, words, {"CANCELQ_REDIS_URL": redis_url}) == 0
        event = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert event["status"] == "cancelled"
        (final,) = [e for e in await rig.events() if e.final]
        late_us = (final.sent_us or 0) - (final.queued_us or 0)
        assert 790_000 <= late_us < 2_000_000


async def test_a_timed_cancel_is_withdrawn_before_its_time_by_the_client_and_by_the_command(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        orders = [rig.order(), rig.order()]

        def ask() -> list[Status]:
            with Client(redis_url) as client:
                far_ms = str(9_000_000_000_000)
                first = client.submit("bitget:main", symbol="BTCUSDT", order_id=orders[0], not_before_ms=far_ms)
                taken_back = client.revoke("bitget:main", first.id).wait(20)
                second = client.submit(
                    "bitget:main", id="t-2", symbol="BTCUSDT", order_id=orders[1], not_before_ms=far_ms
                )
                words = ["submit", "bitget:main", "--scope", "revoke", "--target", "t-2", "--wait"]
                assert cli.run(words, {"CANCELQ_REDIS_URL": redis_url}) == 0
                return [taken_back.status, first.wait(20).status, second.wait(20).status]

        assert await asyncio.to_thread(ask) == [Status.revoked] * 3
        assert {rig.truth(order)["state"] for order in orders} == {"live"}
        assert not [call for call in rig.simulator.calls().entries if "cancel" in str(call["endpoint"])]


@pytest.mark.parametrize(
    ("words", "code"), [(["--in", "soon"], 2), (["--in", "1s", "--not-before-ms", "9000000000000"], 2)]
)
def test_what_cannot_be_meant_is_refused(redis_url: str, words: list[str], code: int) -> None:
    asked = ["submit", "bitget:main", "--symbol", "BTCUSDT", "--order-id", "1", *words]
    assert cli.run(asked, {"CANCELQ_REDIS_URL": redis_url}) == code
