"""The shipped server configuration suits the oldest and the newest server, and keeps what it took."""

from pathlib import Path

import pytest
from redis.exceptions import RedisError

from tests.servers import KINDS, RedisServer, ServerMissing

CONF = Path(__file__).parents[2] / "ops" / "redis" / "redis.conf"

# Where the server lives is the container's business; here it has a port and a folder of the test's own.
PLACE = {"bind", "port", "dir"}


def test_it_is_durable_and_never_evicts(server_kind: str, tmp_path: Path) -> None:
    server = _server(server_kind, tmp_path)
    try:
        with server.client() as client:
            told = client.config_get("appendonly", "appendfsync", "save", "maxmemory-policy", "maxmemory")
            client.set("accepted", "yes")
        server.kill9()
        server.restart()
        with server.client() as client:
            assert client.get("accepted") == b"yes"
    finally:
        server.stop()
    assert told == {
        "appendonly": "yes",
        "appendfsync": "always",
        "save": "",
        "maxmemory-policy": "noeviction",
        "maxmemory": str(512 * 1024 * 1024),
    }


def test_no_value_is_larger_than_anybody_could_mean(server_kind: str, tmp_path: Path) -> None:
    """It bounds each field of an entry, not their number: how much there may be in all is `maxmemory`'s to say."""
    server = _server(server_kind, tmp_path)
    try:
        with server.client() as client:
            client.xadd("inbox", {"symbol": "BTCUSDT", "order_id": "1"})
            with pytest.raises((RedisError, OSError)):
                client.xadd("inbox", {"reason": "x" * 1_100_000})
        with server.client() as another:  # the server has closed the connection, which a client may learn late
            assert another.xlen("inbox") == 1
    finally:
        server.stop()


def _server(kind: str, folder: Path) -> RedisServer:
    lines = (line.strip() for line in CONF.read_text().splitlines())
    directives = dict(line.split(maxsplit=1) for line in lines if line and not line.startswith("#"))
    config = {name: value.strip('"') for name, value in directives.items() if name not in PLACE}
    server = KINDS[kind](folder, durable=False, config=config)
    try:
        server.start()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    return server
