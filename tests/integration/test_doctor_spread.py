"""`doctor` of servers that are several: sentinels that are lost, a cluster that lacks a node."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cancelq.contract import Lane
from cancelq_worker.doctor.findings import Level
from cancelq_worker.exits import Exit
from tests.ha import cluster, watched
from tests.integration.ward import at, empty_lane, examined, the


async def test_sentinels_with_nothing_wrong_and_then_without_two(tmp_path: Path) -> None:
    with watched(tmp_path, replicas=1, config={"maxmemory": "100mb"}) as desk:
        with desk.master().client() as client:
            empty_lane(client, Lane("bitget", "main"))
        report = await examined(desk.url)
        assert the(report, "server.sentinels").level is Level.ok
        assert the(report, "server.role").level is Level.ok
        assert the(report, "server.replica").level is Level.ok
        assert the(report, "lane.served", "bitget:main").level is Level.fail, "nobody serves it, on whatever server"
        assert not [name for name in at(report, Level.fail) if name != "lane.served"]
        for sentinel in desk.sentinels[1:]:
            sentinel.stop()
        async with asyncio.timeout(20):  # until the one that is left has noticed
            while True:
                told = [one for one in (await examined(desk.url)).findings if one.check == "server.sentinels"]
                assert [one.level for one in told].count(Level.warn) == 2
                if any("cannot decide on a failover" in one.told and one.level is Level.fail for one in told):
                    break
        desk.sentinels[0].stop()
        away = await examined(desk.url)
        assert (the(away, "server.reachable").level, away.exit) == (Level.fail, Exit.UNREACHABLE)


async def test_a_cluster_node_by_node_and_without_one(tmp_path: Path) -> None:
    with cluster(tmp_path) as desk:
        lanes = [desk.lane("bitget", node) for node in range(3)]
        for node, lane in zip(desk.nodes, lanes, strict=True):
            with node.client() as client:
                empty_lane(client, lane)
        report = await examined(desk.url)
        nodes = {f"127.0.0.1:{node.port}" for node in desk.nodes}
        assert {one.subject for one in report.findings if one.check == "durability.fsync"} == nodes
        assert {one.level for one in report.findings if one.check == "server.slots"} == {Level.ok}
        assert {one.level for one in report.findings if one.check == "server.cluster"} == {Level.warn}, "no replicas"
        assert {one.subject for one in report.findings if one.check == "lane.served"} == set(map(str, lanes))
        assert the(report, "jobs.server").level is Level.fail, "RQ needs a server of its own"
        assert report.exit is Exit.CONFIGURATION
        alone = await examined(f"redis://127.0.0.1:{desk.nodes[0].port}/0")
        assert the(alone, "server.cluster").level is Level.fail
        assert "redis+cluster://" in the(alone, "server.cluster").remedy
        desk.nodes[2].kill9()
        broken = await examined(desk.url)
        assert the(broken, "server.reachable", f"127.0.0.1:{desk.nodes[2].port}").level is Level.fail
        assert broken.exit is Exit.UNREACHABLE


@pytest.mark.parametrize("url", ["redis+sentinel://127.0.0.1:1/desk", "redis+cluster://127.0.0.1:1"])
async def test_nobody_who_tells_where_the_servers_are(url: str) -> None:
    report = await examined(url)
    assert "cannot be found" in the(report, "server.reachable").told
    assert report.exit is Exit.UNREACHABLE
