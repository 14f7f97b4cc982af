"""`cancelq worker` and `cancelq guard` as processes: signals, new keys, a dry run that HUP and TERM reach."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from cancelq.contract import Status
from cancelq_worker.guard_status import guard_statuses
from cancelq_worker.trips import command
from tests.integration.rig import Rig, desk
from tests.integration.test_rotation import new_key

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0

pytestmark = pytest.mark.one_server


class Running:
    """A process whose lines can be waited for."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.seen: list[str] = []

    async def expect(self, part: str) -> str:
        assert self.process.stdout is not None
        async with asyncio.timeout(PATIENCE_S):
            while line := (await self.process.stdout.readline()).decode():
                self.seen.append(line)
                if part in line:
                    return line
        raise AssertionError(f"no line with {part!r} in:\n" + "".join(self.seen))

    async def code(self) -> int:
        out, _ = await asyncio.wait_for(self.process.communicate(), PATIENCE_S)
        self.seen.append(out.decode())
        return self.process.returncode or 0


@asynccontextmanager
async def running(env: Mapping[str, str], *words: str) -> AsyncIterator[Running]:
    clean = {name: value for name, value in os.environ.items() if not name.upper().startswith("CANCELQ_")}
    program = "import sys; from cancelq_worker.cli import main; main()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, *words, env={**clean, **env}, cwd=ROOT, stdout=PIPE, stderr=STDOUT
    )
    try:
        yield Running(process)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_hup_under_load_serves_a_new_key_in_the_same_process(redis_url: str, tmp_path: Path) -> None:
    async with desk(redis_url, workers=0, latency_before_ms=(5, 30), latency_after_ms=(5, 30)) as rig:
        secret = tmp_path / "cancelq_accounts__bitget__main__api_key"
        env = {name: value for name, value in rig.environment().items() if not name.endswith("API_KEY")}
        secret.touch(mode=0o600)
        secret.write_text("sim-key")
        async with running({**env, "CANCELQ_SECRETS_DIR": str(tmp_path)}, "worker") as worker:
            await worker.expect("watching lane")
            orders = [rig.order() for _ in range(600)]
            ids = await rig.send_all([{"symbol": "BTCUSDT", "order_id": order} for order in orders])
            await rig.calls("batch-cancel-order", least=3)
            new_key(rig, "rotated")
            secret.write_text("rotated")
            worker.process.send_signal(signal.SIGHUP)
            await worker.expect("the settings were read again")
            del rig.simulator.core.accounts["bitget", "sim-key"]
            finals = await rig.finals(ids, within_s=60)
            assert {event.status for event in finals.values()} == {Status.cancelled}
            assert {event.attempt for event in finals.values()} == {1}
            secret.write_text("two words")
            worker.process.send_signal(signal.SIGHUP)
            await worker.expect("the old ones stay")
            last = await rig.final(await rig.send(symbol="BTCUSDT", order_id=rig.order()))
            assert last.status is Status.cancelled
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.code() == 0
            assert "sim-pass" not in "".join(worker.seen)


async def test_a_dry_run_is_no_rq_worker_and_logs_no_secret(redis_url: str) -> None:
    async with desk(redis_url, venue="bingx", workers=0) as rig:
        async with running(rig.environment(), "worker", "--dry-run") as worker:
            await worker.expect("DRY RUN")
            await worker.expect("watching lane")
            assert await rig.client.exists("rq:workers") == 0
            order = rig.order()
            await rig.send(symbol="BTC-USDT", order_id=order)
            line = await worker.expect("/openApi/spot/v1/trade/cancel")
            assert order in line
            worker.process.send_signal(signal.SIGTERM)
            assert await worker.code() == 0
            told = "".join(worker.seen)
            assert "signature" not in told
            assert "sim-key" not in told
        assert not rig.simulator.calls().entries


async def test_the_guard_command_keeps_until_it_ends_and_then_the_lane_is_flattened(redis_url: str) -> None:
    async with desk(redis_url) as rig:
        await rig.ready()
        order = rig.order()
        async with running({"CANCELQ_REDIS_URL": redis_url}, "guard", "bitget:main", "--ttl", "1s") as guard:
            await guard.expect("is guarded")
            for _ in range(30):  # for some three times of its ttl
                await command(rig.client, "XREAD", "BLOCK", 100, "STREAMS", rig.lane.inbox, "$")
            assert await armed(rig)
            assert rig.truth(order)["state"] == "live"
            guard.process.send_signal(signal.SIGTERM)
            assert await guard.code() == 0
        async with asyncio.timeout(10):
            while rig.truth(order)["state"] == "live":
                await command(rig.client, "XREAD", "BLOCK", 20, "STREAMS", rig.lane.inbox, "$")


async def armed(rig: Rig) -> bool:
    return (await guard_statuses(rig.client, [rig.lane]))[rig.lane].left_ms is not None
