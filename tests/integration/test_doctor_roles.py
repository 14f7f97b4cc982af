"""`doctor` under the users of the roles: what each can be told, and a user whose rights are not those of its role."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from cancelq.contract import Lane
from cancelq_worker.doctor.findings import Level
from cancelq_worker.exits import Exit
from cancelq_worker.scripts import SCRIPTS
from tests.integration.ward import at, empty_lane, examined, the
from tests.servers import RedisDebian

pytestmark = pytest.mark.one_server("redis7")

ROOT = Path(__file__).parents[2]
USERS = ("admin", "worker", "operator", "auditor", "jobs", "metrics", "producer-bitget-main")
PASSWORD = "a-password-of-the-test"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisDebian]:
    """A server with the users of `ops/redis/users.sh`, and a lane; who gives no password is not let in."""
    passwords = tmp_path_factory.mktemp("passwords")
    for user in USERS:
        (passwords / user).write_text(PASSWORD)
    words = ["sh", str(ROOT / "ops/redis/users.sh"), str(passwords), "bitget:main"]
    acl = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    file = passwords / "users.acl"
    file.write_text(acl.replace("user default reset off", "user default on nopass ~* &* +@all"))
    server = RedisDebian(tmp_path_factory.mktemp("server"), durable=True, config={"aclfile": str(file)})
    server.start()
    client = server.client()
    empty_lane(client, Lane("bitget", "main"))
    for source in SCRIPTS.source.values():
        client.script_load(source)
    client.acl_setuser("default", enabled=False)
    yield server
    server.stop()


def as_user(server: RedisDebian, user: str) -> str:
    return server.url.replace("//", f"//{user}:{PASSWORD}@")


async def test_the_admin_is_told_that_every_role_has_its_rights(guarded: RedisDebian) -> None:
    report = await examined(as_user(guarded, "admin"))
    users = {one.facts["user"]: one.level for one in report.findings if one.check == "doors.users"}
    assert users == dict.fromkeys(set(USERS) - {"admin"}, Level.ok)
    assert the(report, "doors.default_user").told == "who gives no password is not let in"
    assert PASSWORD not in str(report)


async def test_a_user_with_too_much_and_one_with_too_little(guarded: RedisDebian) -> None:
    with Redis.from_url(as_user(guarded, "admin")) as client:
        client.execute_command("ACL", "SETUSER", "auditor", "+xadd", "+flushall", "~*")
        client.execute_command("ACL", "SETUSER", "worker", "-xread")
        report = await examined(as_user(guarded, "admin"))
        client.execute_command("ACL", "LOAD")
    users = {one.facts["user"]: one for one in report.findings if one.check == "doors.users"}
    assert users["auditor"].level is Level.fail
    assert "FLUSHALL" in users["auditor"].told
    assert "XADD cancelq:{bitget:main}:inbox" in users["auditor"].told
    assert users["worker"].level is Level.fail
    assert "may not XREAD" in users["worker"].told
    assert "ops/redis/users.sh" in users["worker"].remedy
    assert report.exit is Exit.UNHEALTHY


@pytest.mark.parametrize("user", ["operator", "worker", "metrics", "jobs", "auditor", "producer-bitget-main"])
async def test_what_a_role_may_not_ask_is_unknown_and_names_the_right(guarded: RedisDebian, user: str) -> None:
    report = await examined(as_user(guarded, user))
    assert set(at(report, Level.fail)) <= {"lane.served"}, "nothing fails for want of a right"
    for told in at(report, Level.unknown).values():
        assert re.search(r"lacks (\+[a-z|_]+|a key or a channel)$|log", told), told
    known = {"operator": "inbox.shortened", "worker": "durability.aof", "metrics": "lane.hold"}.get(user)
    if known:
        assert the(report, known).level is Level.ok
