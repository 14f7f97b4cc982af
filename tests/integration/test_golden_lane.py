"""Data that a worker of an earlier version left in a lane are finished by this one."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from cancelq.contract import Status
from cancelq_worker.data_version import DATA_VERSION
from cancelq_worker.simulator.core import Entry
from cancelq_worker.trips import connect
from tests.integration.lone_ledger import lone_desk
from tests.integration.rig import LANE, desk
from tests.wire.lane_file import load_lane

GOLDEN = Path(__file__).parents[1] / "wire" / "golden"
#: The lane is on another server than before, so its workers wait for a lease and a window: here the shortest.
IN_SHORT = {"CANCELQ_LEASE_MS": "3000", "CANCELQ_LOOKUP_BUDGET_MS": "2000"}
FILES = sorted(GOLDEN.glob("lane-v*.json"))

pytestmark = pytest.mark.one_server


def of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_what_an_earlier_version_left_is_finished(redis_url: str, path: Path) -> None:
    golden = of(path)
    async with desk(redis_url, workers=0, env=IN_SHORT) as rig:
        client = connect(redis_url)
        await load_lane(client, LANE, golden["keys"])
        created_ms = time.time_ns() // 1_000_000 - 60_000
        for order in golden["orders"]:
            rig.simulator.add_order(Entry("BTCUSDT", order_id=order, created_ms=created_ms))
        await client.aclose()
        rig.start()
        finals = await rig.finals(list(golden["outcomes"]), within_s=60)
        assert {id_: str(event.status) for id_, event in finals.items()} == golden["outcomes"]
        cancelled = [event.order_id for event in finals.values() if event.status is Status.cancelled]
        assert all(rig.truth(str(order))["state"] == "cancelled" for order in cancelled)
        left = [order for order in golden["orders"] if order not in cancelled]
        assert all(rig.truth(order)["open"] for order in left)
        assert finals["g-waits"].extras == {"x_desk": "7"}
        version = await rig.client.get(LANE.key("version"))
        assert version == (None if DATA_VERSION == 1 else str(DATA_VERSION).encode())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_what_an_earlier_version_remembered_is_not_done_again(redis_url: str, path: Path) -> None:
    async with lone_desk(redis_url) as lane:
        await lane.client.flushdb()
        await load_lane(lane.client, LANE, of(path)["keys"])
        unread = await lane.read(await lane.ledger.cursor())
        await lane.add(id="g-done", symbol="BTCUSDT", order_id="2")
        await lane.add(id="g-waits", symbol="BTCUSDT", order_id="3")
        admitted = await lane.admit(await lane.read(await lane.ledger.cursor()))
        assert (admitted.admitted, admitted.duplicates) == (len(unread), 2)


def test_each_version_up_to_the_last_but_one_has_its_file() -> None:
    """That of the version in use is made, at the latest, when the next one begins."""
    assert {path.stem for path in FILES} >= {f"lane-v{version}" for version in range(1, DATA_VERSION)}
    assert FILES
