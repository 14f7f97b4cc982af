"""What real workers tell, archived and audited: everything is proven, at every venue, whatever the venue did."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from cancelq_worker import cli
from tests.integration.rig import desk

CANCEL = {"bitget": "cancel-order", "bybit": "cancel", "bingx": "cancel"}


async def command_line(redis_url: str, *args: str, **env: str) -> int:
    """Runs beside the event loop, as another process would."""
    return await asyncio.to_thread(cli.run, args, {"CANCELQ_REDIS_URL": redis_url, **env})


@pytest.mark.parametrize("venue", CANCEL)
async def test_a_lane_that_ran_through_trouble_is_proven_before_and_after_it_was_archived(
    redis_url: str, venue: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Given cancels, repeats, a revoked one, malformed ones and answers that were lost, I expect the audit to prove
    all of it, refused calls included, from the stream, and from the archive after the stream was trimmed."""
    archive = ("--to", str(tmp_path / "archive"))
    async with desk(redis_url, venue=venue) as rig:
        symbol = rig.spelt("BTC", "USDT")
        orders = [rig.order() for _ in range(30)] + [rig.order(state="filled") for _ in range(5)]
        rig.fault("execute_and_drop", count=2)
        entries = [{"symbol": symbol, "order_id": order, "id": f"a-{order}", "x_desk": "é"} for order in orders]
        await rig.send_all(entries)
        await rig.finals([entry["id"] for entry in entries])
        await rig.send_all([entries[0], {"symbol": symbol, "nonsense": "1", "id": "bad"}])
        await rig.send_all([{"symbol": symbol, "order_id": rig.order(), "strategy": "grid"}])
        rig.fault("http_429", count=1, endpoint=CANCEL[venue])
        last = await rig.send(symbol=symbol, order_id=rig.order(), id="refused-once")
        await rig.finals([last])
        swept = await rig.send(scope="symbol", symbol=symbol, id="sweep")
        await rig.finals(["bad", swept])

        assert await command_line(redis_url, "audit", "--json") == 0
        (lane,) = json.loads(capsys.readouterr().out.splitlines()[-1])["lanes"]
        assert (lane["intents"], lane["intents_proven"], lane["findings"]) == (40, 40, [])
        assert lane["statuses"]["duplicate"] == 1
        refused = [row for row in lane["refusals"] if "so it is no attempt" in row["detail"]]
        assert sum(row["count"] for row in refused) == 1

        assert await command_line(redis_url, "archive", *archive, "--leave", "0s", "--keep", "0s") == 0
        assert await rig.client.xlen(rig.lane.results) == 0
        capsys.readouterr()
        args = ("audit", str(rig.lane), "--archive", archive[1], "--json")
        assert await command_line(redis_url, *args) == 0
        (again,) = json.loads(capsys.readouterr().out.splitlines()[-1])["lanes"]
        assert again["archive"]["events"] == again["events"] == lane["events"]
        assert without_archive(again) == without_archive(lane)


def without_archive(lane: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in lane.items() if name != "archive"}
