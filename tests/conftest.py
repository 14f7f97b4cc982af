"""Fixtures for tests against real servers.

`redis_url`      an empty database on a server shared by the session
`redis_server`   a durable server of the test's own, to kill and restart

Both run once for each kind of server, "valkey" and "redis7"; with `pytestmark = pytest.mark.one_server` (or
`one_server("redis7")`) a module runs against one only.
"""

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.servers import KINDS, RedisServer, ServerMissing, ServerPool

# In the suite always the same examples, so that it says of a change what it said before; CANCELQ_EXPLORE=1 draws
# others, as `make fuzz` does all the time. How long one takes says nothing on a machine that is busy with other things.
settings.register_profile("cancelq", deadline=None, derandomize="CANCELQ_EXPLORE" not in os.environ)
settings.load_profile("cancelq")


# A shell starts what it puts into the background with these signals ignored, and so would all children be.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGQUIT) is signal.SIG_IGN:
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "server_kind" in metafunc.fixturenames:
        metafunc.parametrize("server_kind", _kinds_wanted(metafunc), indirect=True)


@pytest.fixture(autouse=True)
def _process_as_it_was() -> Iterator[None]:
    """What a test changed of its process would reach the next one: an ignored signal even its children."""
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    handlers = {number: signal.getsignal(number) for number in signals}
    root = logging.getLogger()
    logs, level = list(root.handlers), root.level
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for added in [one for one in root.handlers if one not in logs]:
        root.removeHandler(added)
    root.setLevel(level)


@pytest.fixture
def redis_url(server_kind: str, server_pool: ServerPool) -> str:
    """An empty server without loaded scripts. It is shared, so a test leaves its configuration alone."""
    try:
        server = server_pool.get(server_kind)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    server.flush()
    return server.url


@pytest.fixture
def redis_server(server_kind: str, tmp_path: Path) -> Iterator[RedisServer]:
    """A running server for this test alone (AOF, `appendfsync always`): kill it, restart it, configure it."""
    folder = tmp_path / "redis-server"
    folder.mkdir()
    server = KINDS[server_kind](folder, durable=True)
    try:
        server.start()
    except ServerMissing as missing:
        pytest.skip(str(missing))
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server_kind(request: pytest.FixtureRequest) -> str:
    """Which server this run of the test is about."""
    return str(request.param)


@pytest.fixture(scope="session")
def server_pool(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerPool]:
    pool = ServerPool(tmp_path_factory.mktemp("servers"))
    try:
        yield pool
    finally:
        pool.stop()


def _kinds_wanted(metafunc: pytest.Metafunc) -> list[str]:
    marker = metafunc.definition.get_closest_marker("one_server")
    if marker is None:
        return list(KINDS)
    (kind,) = marker.args or ("valkey",)
    if kind not in KINDS:
        raise pytest.UsageError(f"one_server({kind!r}): there is {' and '.join(map(repr, KINDS))}")
    return [kind]
