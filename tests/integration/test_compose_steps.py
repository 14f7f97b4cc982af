"""The steps that the compose file tells, done as they stand, without containers: the server takes its users from them,
and a worker its secrets."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from cancelq_worker.embedded import free_port
from cancelq_worker.settings import Settings
from tests.servers import ServerMissing, find_redis_server

OPS = Path(__file__).parents[2] / "ops"


def steps() -> str:
    """What is done before the first container is started."""
    head = (OPS / "compose.yaml").read_text().partition("\nname:")[0]
    lines = [line[4:] for line in head.splitlines() if line.startswith("#   ")]
    return "\n".join(line for line in lines if not line.startswith("docker"))


def test_the_server_and_a_worker_start_from_what_the_steps_leave(tmp_path: Path) -> None:
    try:
        server = find_redis_server()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    shutil.copytree(OPS / "redis", tmp_path / "redis")
    env = {name: value for name, value in os.environ.items() if not name.startswith("CANCELQ_")}
    subprocess.run(["sh", "-euc", steps()], cwd=tmp_path, env=env, check=True, timeout=30, capture_output=True)
    made = [file for file in tmp_path.rglob("*") if file.parent.name in ("passwords", "secrets", "data")]
    assert len(made) == 10
    assert {file.stat().st_mode & 0o077 for file in made} == {0}
    passwords = [(tmp_path / "passwords" / user).read_text().strip() for user in ("worker", "jobs", "operator")]
    users = (tmp_path / "secrets" / "users.acl").read_text()
    assert not [password for password in passwords if password in users]

    port = free_port()
    config = (tmp_path / "redis" / "redis.conf").read_text().replace("dir /data", f"dir {tmp_path / 'data'}")
    (tmp_path / "redis.conf").write_text(re.sub(r"(?m)^(bind|port) .*$", "", config))
    aclfile = ["--aclfile", str(tmp_path / "secrets" / "users.acl")]
    command = [server, str(tmp_path / "redis.conf"), "--port", str(port), "--bind", "127.0.0.1", *aclfile]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert any("Ready to accept connections" in line for line in process.stdout)
        mounted = tmp_path / "run"
        mounted.mkdir(mode=0o700)
        (mounted / "cancelq_redis_url").symlink_to(tmp_path / "secrets" / "worker.url")
        for name in ("api_key", "api_secret", "passphrase"):
            (mounted / f"cancelq_accounts__bitget__main__{name}").symlink_to(tmp_path / "secrets" / name)
        settings = Settings.load(None, {"CANCELQ_SECRETS_DIR": str(mounted)})
        with Redis.from_url(settings.redis_url.replace("server:6379", f"127.0.0.1:{port}")) as redis:
            assert redis.info("server")["tcp_port"] == port
        with Redis(port=port) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
    finally:
        process.terminate()
        process.communicate(timeout=20)
