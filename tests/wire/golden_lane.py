"""Makes the golden file of a lane's data as this program writes them: intents at every stage, and what is remembered.

    python -m tests.wire.golden_lane

Run once for each version of the data, just before the next one is begun; the file is never changed again. A worker of
any later version must finish what is in it (`tests/integration/test_golden_lane.py`).
"""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Any

from cancelq.contract import Status
from cancelq_worker.data_version import DATA_VERSION
from cancelq_worker.embedded import EmbeddedServer
from tests.integration.lone_ledger import Desk, lone_desk
from tests.integration.rig import LANE, Rig, desk
from tests.wire.lane_file import read_lane

FOLDER = Path(__file__).parent / "golden"


async def make(redis_url: str) -> dict[str, Any]:
    """The lane's data, the orders its intents name, and the outcome each intent must come to."""
    outcomes: dict[str, str] = {}
    async with desk(redis_url, workers=0) as rig:
        open_orders = await _by_a_worker(rig, outcomes)
        async with lone_desk(redis_url) as lane:
            open_orders += await _by_hand(rig, lane, outcomes)
            keys = await read_lane(lane.client, LANE)
    return {"lane": str(LANE), "orders": open_orders, "outcomes": outcomes, "keys": keys}


async def _by_a_worker(rig: Rig, outcomes: dict[str, str]) -> list[str]:
    """An intent that has ended, whose id is remembered; and one that was acknowledged and is being looked for."""
    deaf = rig.order()
    rig.simulator.configure({"deaf_ids": [deaf]})
    rig.start()
    await rig.final(await rig.send(id="g-done", symbol="BTCUSDT", order_id=rig.order()))
    looked = await rig.send(id="g-look", symbol="BTCUSDT", order_id=deaf)
    while Status.accepted not in {event.status for event in await rig.of(looked)}:
        await rig.client.ping()
    await rig.stop()
    outcomes["g-look"] = "cancelled"
    return [deaf]


async def _by_hand(rig: Rig, lane: Desk, outcomes: dict[str, str]) -> list[str]:
    """Intents that nobody serves: in the hands of one that is gone, waiting, timed, expired, of a pair, revoked."""
    now_ms = time.time_ns() // 1_000_000
    orders = [rig.order() for _ in range(6)]
    await lane.add(id="g-held", symbol="BTCUSDT", order_id=orders[0])
    await lane.admit(await lane.read(await lane.ledger.cursor()))
    assert (await lane.take("gone-1")).batch
    await lane.add(id="g-waits", symbol="BTCUSDT", order_id=orders[1], strategy="maker", x_desk="7")
    await lane.add(id="g-urgent", symbol="BTCUSDT", order_id=orders[2], priority="urgent")
    await lane.add(id="g-timed", symbol="BTCUSDT", order_id=orders[3], not_before_ms=str(now_ms + 20_000))
    await lane.add(id="g-expired", symbol="BTCUSDT", order_id=orders[4], expires_at_ms=str(now_ms + 20_000))
    await lane.add(id="g-pair", scope="symbol", symbol="ETHUSDT")
    await lane.add(id="g-withdrawn", symbol="BTCUSDT", order_id=orders[5])
    await lane.add(id="g-revoke", scope="revoke", target="g-withdrawn")
    await lane.admit(await lane.read(await lane.ledger.cursor()))
    await lane.add(id="g-unread", symbol="BTCUSDT", order_id="1")  # not admitted yet, and of an order nobody has
    outcomes |= dict.fromkeys(["g-held", "g-waits", "g-urgent", "g-timed"], "cancelled")
    outcomes |= {"g-expired": "expired", "g-pair": "expired", "g-withdrawn": "revoked", "g-revoke": "revoked"}
    outcomes["g-unread"] = "not_found"
    return orders


def main() -> None:
    path = FOLDER / f"lane-v{DATA_VERSION}.json"
    if path.exists():
        raise SystemExit(f"{path} exists: what was written by a version is never changed")
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer(data_dir=Path(folder)) as server:
        made = asyncio.run(make(server.url))
    path.write_text(json.dumps(made, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
