"""A worker does not start on a server that would lose what it accepted."""

from __future__ import annotations

import pytest

from cancelq_worker.exits import CommandFailed, Exit
from cancelq_worker.preflight import check_server
from cancelq_worker.trips import connect
from tests.servers import RedisServer


async def test_a_good_server_passes(redis_server: RedisServer) -> None:
    client = connect(redis_server.url)
    await check_server(client)
    await client.aclose()


async def test_a_server_that_evicts_is_refused_with_the_remedy(redis_server: RedisServer) -> None:
    redis_server.config_set("maxmemory-policy", "allkeys-lru")
    client = connect(redis_server.url)
    with pytest.raises(CommandFailed) as failed:
        await check_server(client)
    assert failed.value.code == Exit.CONFIGURATION
    assert "noeviction" in failed.value.remedy
    await client.aclose()
