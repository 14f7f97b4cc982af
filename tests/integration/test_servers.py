"""The servers that the tests stand on do what their fixtures promise."""

import os

import pytest
from redis import Redis
from redis.exceptions import NoScriptError

from tests.servers import RedisServer


@pytest.mark.parametrize("run", [1, 2])
def test_every_test_gets_an_empty_server(redis_url: str, run: int) -> None:
    with Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        with pytest.raises(NoScriptError):
            client.evalsha("e0e1f9fabfc9d4800c877a703b823ac0578ff8db", 0)
        client.set("left behind", run)
        client.script_load("return 1")


def test_a_killed_server_comes_back_on_its_port_with_what_it_accepted(redis_server: RedisServer) -> None:
    url, pid = redis_server.url, redis_server.pid
    with redis_server.client() as client:
        client.set("accepted", "yes")
    redis_server.kill9()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    redis_server.restart()
    assert redis_server.url == url
    assert redis_server.pid != pid
    with redis_server.client() as client:
        assert client.get("accepted") == b"yes"


def test_configuration_can_be_changed_while_it_runs(redis_server: RedisServer) -> None:
    redis_server.config_set("maxmemory", "12mb")
    with redis_server.client() as client:
        assert client.info("memory")["maxmemory"] == 12 * 1024 * 1024


@pytest.mark.one_server
def test_a_marked_test_runs_on_valkey_only(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        assert "valkey_version" in client.info("server")


@pytest.mark.one_server("redis7")
def test_a_mark_may_name_the_other_server(redis_url: str) -> None:
    with Redis.from_url(redis_url) as client:
        assert "valkey_version" not in client.info("server")
