"""`cancelq redrive` as a process: what it shows, sends and exits with."""

import asyncio
import json
import subprocess
import sys

import pytest

from cancelq.contract import Status
from cancelq_worker.jobs.redrive import redriven_id
from tests.integration.jobs_rig import PROGRAM, ROOT, clean_environment
from tests.integration.rig import Rig
from tests.integration.test_jobs_work import unresolved

pytestmark = pytest.mark.one_server


async def redrive(rig: Rig, *words: str) -> subprocess.CompletedProcess[str]:
    env = clean_environment({"CANCELQ_REDIS_URL": rig.redis_url})
    command = [sys.executable, "-c", PROGRAM, "redrive", *words]
    return await asyncio.to_thread(
        subprocess.run, command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL
    )


async def test_it_asks_shows_sends_once_and_says_what_it_left(redis_url: str) -> None:
    async with unresolved(redis_url) as (rig, order_id, sent):
        rig.simulator.configure({"stuck_ids": []})
        again = redriven_id(rig.lane, sent)
        asked = await redrive(rig)
        assert (asked.returncode, "add --yes" in asked.stderr) == (2, True)
        assert f"bitget:main {sent}: order BTCUSDT {order_id}, again as {again}" in asked.stderr
        done = await redrive(rig, "--yes", "--json")
        assert done.returncode == 0
        assert json.loads(done.stdout) == {"bitget:main": {"sent": {sent: again}, "left": {}}}
        assert (await rig.final(again)).status is Status.cancelled
        nothing = await redrive(rig, "bitget:main", "--yes")
        assert (nothing.returncode, nothing.stderr.strip()) == (0, "nothing is unresolved")
        named = await redrive(rig, "bitget:main", "--id", sent, "--yes")
        assert named.returncode == 1
        assert "no unresolved intent, or dealt with since" in named.stderr


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["bybit:nobody", "--yes"], 1, "bybit:nobody has no inbox"),
        (["bitgt:main"], 2, "unknown venue"),
        (["--since", "yesterday"], 2, "--since wants a time like 30s, 1h or 7d"),
    ],
)
async def test_what_cannot_be_done_is_said(redis_url: str, words: list[str], code: int, said: str) -> None:
    env = clean_environment({"CANCELQ_REDIS_URL": redis_url})
    command = [sys.executable, "-c", PROGRAM, "redrive", *words]
    done = await asyncio.to_thread(
        subprocess.run, command, env=env, cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, said in done.stderr) == (code, True), done.stderr
