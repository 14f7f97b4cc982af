"""A master that was demoted while clients were connected, and calls that no replica would know of."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ReadOnlyError

from cancelq import AsyncClient, BrokerRefused, Client
from cancelq.contract import Lane
from cancelq_worker import cli
from cancelq_worker.egress import Egress
from cancelq_worker.ledger import RedisLedger
from cancelq_worker.records import LanePlan
from cancelq_worker.scripts import NOT_WAITED_FOR, Durability
from cancelq_worker.trips import connect
from cancelq_worker.venues.port import Bucket
from tests.ha import until
from tests.servers import KINDS, RedisServer

LANE = Lane("bitget", "main")
CANCEL = {"symbol": "BTCUSDT", "order_id": "121211212122"}


class Naming:
    """A sentinel of our own, on a real socket: it names the servers of a list, one after the other, then the last."""

    def __init__(self, ports: list[int]) -> None:
        self.ports = ports
        self.asked = 0

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while b"SENTINEL" in await reader.read(4096):
            port = self.ports[min(self.asked, len(self.ports) - 1)]
            self.asked += 1
            fields = ("name", "desk", "ip", "127.0.0.1", "port", str(port), "config-epoch", str(self.asked))
            writer.write(f"*{len(fields)}\r\n".encode() + b"".join(f"${len(f)}\r\n{f}\r\n".encode() for f in fields))
        writer.close()


@asynccontextmanager
async def naming(*ports: int) -> AsyncIterator[tuple[str, Naming]]:
    """The URL of such a sentinel."""
    made = Naming(list(ports))
    server = await asyncio.start_server(made.answer, "127.0.0.1", 0)
    async with server:
        yield f"redis+sentinel://127.0.0.1:{server.sockets[0].getsockname()[1]}/desk", made


@pytest.fixture
def pair(server_kind: str, tmp_path: Path, redis_server: RedisServer) -> Iterator[tuple[RedisServer, RedisServer]]:
    """A master with the lane's inbox, and a replica of it."""
    folder = tmp_path / "replica"
    folder.mkdir()
    replica = KINDS[server_kind](folder, durable=False)
    replica.start()
    try:
        with redis_server.client() as client:
            client.xgroup_create(LANE.inbox, "made", mkstream=True)
        with replica.client() as client:
            client.replicaof("127.0.0.1", redis_server.port)
        yield redis_server, replica
    finally:
        replica.stop()


async def test_producers_leave_a_server_that_is_a_replica_by_now(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    async with naming(replica.port, master.port) as (url, _), AsyncClient.from_url(url) as client:
        await client.submit(LANE, CANCEL)
    async with naming(replica.port, master.port) as (url, _):
        await asyncio.to_thread(_submit, url)
    with master.client() as redis:
        assert redis.xlen(LANE.inbox) == 2


def _submit(url: str) -> None:
    with Client.from_url(url) as client:
        client.submit(LANE, CANCEL)


async def test_a_replica_that_is_named_again_and_again_is_told_of(pair: tuple[RedisServer, RedisServer]) -> None:
    async with naming(pair[1].port) as (url, named), AsyncClient.from_url(url) as client:
        with pytest.raises(BrokerRefused, match="this is a replica"):
            await client.submit(LANE, CANCEL)
        assert named.asked < 10


async def test_workers_leave_it_too(pair: tuple[RedisServer, RedisServer]) -> None:
    master, replica = pair
    async with naming(replica.port, master.port) as (url, _):
        client = connect(url)
        try:
            with pytest.raises(RedisConnectionError, match="not the server for this any more"):
                await client.set("it", "told")
            await client.set("it", "told")
        finally:
            await client.aclose()
    with master.client() as redis:
        assert redis.get("it") == b"told"


async def test_units_of_an_address_that_no_replica_has_are_not_used(redis_url: str) -> None:
    client = connect(redis_url)
    try:
        for durability, granted in ((NOT_WAITED_FOR, True), (Durability(1), False)):
            name = f"here-{durability.replicas}"
            egress = Egress(client, name, (Bucket("ip", 100, 1_000_000),), durability=durability)
            await egress.fill()
            assert egress.reserve().covers(("ip",)) is granted
    finally:
        await client.aclose()


async def test_a_turn_that_no_replica_has_asks_the_venue_nothing(pair: tuple[RedisServer, RedisServer]) -> None:
    """What a key may do is asked without a permit, so that a master that was left alone must give no turns."""
    master, replica = pair
    with master.client() as redis:
        until(lambda: redis.wait(1, 100) == 1, "a replica that follows")
    for lane, server, replicas, given in (
        ("any", master, 0, [[True, False]]),
        ("confirmed", master, 1, [[True, False], [False, False]]),  # a busy replica may be too slow once
        ("alone", master, 2, [[False, False]]),
    ):
        client = connect(server.url)
        try:
            plan = LanePlan(Lane("bitget", lane), (), (Bucket("one", 1, 1),), 1, 1, urgent_reserve=1)
            ledger = RedisLedger(client, plan, Durability(replicas))
            assert [await ledger.may_ask_rights() for _ in range(2)] in given
        finally:
            await client.aclose()
    client = connect(replica.url)
    try:
        with pytest.raises(ReadOnlyError):
            await RedisLedger(client, plan).may_ask_rights()
    finally:
        await client.aclose()


def test_submit_durable_tells_what_no_replica_has(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with redis_server.client() as client:
        client.xgroup_create(LANE.inbox, "made", mkstream=True)
    words = ["submit", str(LANE), "--symbol", "BTCUSDT", "--order-id", "1", "--id", "mine", "--durable"]
    code = cli.run(words, {"CANCELQ_REDIS_URL": redis_server.url})
    told = capsys.readouterr().err
    assert code == 69
    assert "mine is queued, but too few replicas confirmed it" in told
    assert "send it again with --id mine" in told
