"""The shipped settings of replicated servers, sentinels and cluster nodes are ones that servers take."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ha import SentinelProcess, conf_lines
from tests.servers import KINDS, ServerMissing, quiet_port

REDIS = Path(__file__).parents[2] / "ops" / "redis"


@pytest.mark.parametrize("name", ["replicated", "cluster"])
def test_a_server_takes_them(server_kind: str, tmp_path: Path, name: str) -> None:
    config = dict(line.split(maxsplit=1) for line in conf_lines(REDIS / f"{name}.conf"))
    more = {"cluster-port": str(quiet_port())} if name == "cluster" else {}
    server = KINDS[server_kind](tmp_path, durable=True, config={**config, **more})
    try:
        server.start()
        with server.client() as client:
            told = client.config_get(*config)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    finally:
        server.stop()
    sizes = {"64mb": str(64 * 1024 * 1024)}
    assert told == {setting: sizes.get(value, value) for setting, value in config.items()}


@pytest.mark.one_server
def test_a_sentinel_takes_them(tmp_path: Path) -> None:
    lines = [line.replace("10.0.0.5 6379", "127.0.0.1 1") for line in conf_lines(REDIS / "sentinel.conf")]
    sentinel = SentinelProcess(tmp_path, lines=[line for line in lines if not line.startswith("port")])
    try:
        sentinel.start()
        with sentinel.client() as client:
            assert client.sentinel_master("desk")["down-after-milliseconds"] == 2000
    finally:
        sentinel.stop()
