"""TLS with certificates on both sides: everything works with the right ones, and says what is wrong with others."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rq import Queue
from rq.serializers import JSONSerializer

from cancelq import AsyncClient, Client, Guard, Lane
from cancelq.broker import client as redis_client
from cancelq.contract import Status
from cancelq.errors import BrokerDown, NotAccepted, UrlError
from cancelq.results import ResultsReader
from cancelq_worker.exits import Exit
from tests.ha import until
from tests.integration.doors import PATIENCE_S, Run, Venue, accounts, run, start
from tests.integration.jobs_rig import ended, rq
from tests.integration.test_rq_worker import Child
from tests.integration.tls_rig import Papers, TlsSentinel, TlsServer
from tests.servers import ServerMissing, quiet_port

LANE, NEVER_SERVED = Lane("bitget", "main"), Lane("bybit", "never")
SERVERS = ("server", "elsewhere-server", "expired-server", "stranger-server")

__all__ = ["run"]  # the fixture


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Papers:
    return Papers(tmp_path_factory.mktemp("papers"))


@pytest.fixture(scope="module")
def servers(papers: Papers, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, TlsServer]]:
    """One for each certificate that a server may show."""
    folder = tmp_path_factory.mktemp("tls")
    made = {name: TlsServer(folder / name, papers, name) for name in SERVERS}
    try:
        for server in made.values():
            server.start()
        yield made
    except ServerMissing as missing:
        pytest.skip(str(missing))
    finally:
        for server in made.values():
            server.stop()


@pytest.fixture(scope="module")
def url(servers: dict[str, TlsServer]) -> str:
    return servers["server"].url


@pytest.fixture(scope="module")
def venue() -> Iterator[Venue]:
    made = Venue()
    yield made
    made.close()


@pytest.fixture(scope="module")
def served(url: str, venue: Venue) -> Iterator[list[Child]]:
    """A worker and a jobs process, over TLS."""
    children: list[Child] = []
    try:
        start(children, ["worker"], {"CANCELQ_REDIS_URL": url, **accounts(venue.base_url)}).expect("watching lane")
        jobs = {"CANCELQ_REDIS_URL": url, "CANCELQ_ACCOUNTS__BITGET__MAIN__DEMO": "false"}
        start(children, ["jobs"], jobs).expect("Listening on")
        yield children
    finally:
        for child in children:
            child.close()


# -- the right certificates -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("served")
@pytest.mark.parametrize("line", ["status", "top --once", "pause {}", "resume {}", "results", "audit"])
def test_the_command_line_over_tls(url: str, run: Run, line: str) -> None:
    code, _, err = run(url, *line.format(LANE).split())
    assert code == 0, err


@pytest.mark.usefixtures("served")
def test_an_intent_is_asked_for_carried_out_and_told_over_tls(url: str, run: Run, venue: Venue) -> None:
    code, out, err = run(
        url, "submit", str(LANE), "--symbol", "BTCUSDT", "--order-id", venue.order(), "--wait", "--json"
    )
    assert (code, '"cancelled"' in out) == (0, True), err
    with ResultsReader(url, [LANE], group="desk", consumer="one", start="0") as reader, Client(url) as client:
        assert client.submit(LANE, symbol="BTCUSDT", order_id=venue.order()).wait(PATIENCE_S).status is Status.cancelled
        assert reader.read()
    with Guard(url, LANE, ttl_s=60) as guard:
        assert guard.beat()


@pytest.mark.usefixtures("served")
async def test_asyncio_over_tls(url: str, venue: Venue) -> None:
    async with AsyncClient(url) as client:
        ticket = await client.submit(LANE, symbol="BTCUSDT", order_id=venue.order())
        assert (await ticket.outcome(PATIENCE_S)).status is Status.cancelled


@pytest.mark.usefixtures("served")
def test_rq_over_tls(url: str, venue: Venue) -> None:
    with redis_client(url) as connection:
        queue = Queue("cancelq", connection=connection, serializer=JSONSerializer)
        job = queue.enqueue("cancelq.rq.submit", str(LANE), {"symbol": "BTCUSDT", "order_id": venue.order()})
        assert ended(job) == "finished"
        assert "lane:bitget:main" in rq(f"{url}&client_name=operator", "info", "lane:bitget:main", "--raw")


def test_a_cluster_over_tls(papers: Papers, tmp_path: Path) -> None:
    bus = str(quiet_port())
    server = TlsServer(tmp_path / "node", papers, cluster_enabled="yes", cluster_port=bus, tls_cluster="yes")
    server.start()
    try:
        with server.client() as node:
            node.execute_command("CLUSTER ADDSLOTSRANGE", 0, 16383)
            until(lambda: b"cluster_state:ok" in node.execute_command("CLUSTER", "INFO"), "the cluster is well")
        url = f"rediss+cluster://127.0.0.1:{server.port}?{papers.query()}"
        with redis_client(url, heeding=True, socket_timeout=5) as cluster, Client(url) as client:
            cluster.xgroup_create(LANE.inbox, "g", mkstream=True)
            ticket = client.submit(LANE, symbol="BTCUSDT", order_id="1")
            assert cluster.xlen(LANE.inbox) == 1
            assert ticket.entry_id
    finally:
        server.stop()


def test_a_master_under_sentinels_over_tls(servers: dict[str, TlsServer], papers: Papers, tmp_path: Path) -> None:
    sentinel = TlsSentinel(
        tmp_path / "sentinel", papers, [f"sentinel monitor desk 127.0.0.1 {servers['server'].port} 1"]
    )
    sentinel.start()
    try:
        url = f"rediss+sentinel://127.0.0.1:{sentinel.port}/desk?{papers.query()}"
        with Client(url) as client, pytest.raises(NotAccepted):  # of the master, which has no such lane
            client.submit(NEVER_SERVED, symbol="BTCUSDT", order_id="1")
    finally:
        sentinel.stop()


async def test_a_user_with_a_password_over_tls(servers: dict[str, TlsServer], papers: Papers) -> None:
    server = servers["server"]
    with server.client() as admin:
        admin.execute_command(
            "ACL", "SETUSER", "desk", "reset", "on", ">long-password", "+xadd", "~*", "+client|setname"
        )
    right, wrong = (
        server.url_with(papers.query()).replace("//", f"//desk:{word}@") for word in ("long-password", "canary-word")
    )
    with Client(right) as client, pytest.raises(NotAccepted):
        client.submit(NEVER_SERVED, symbol="BTCUSDT", order_id="1")
    async with AsyncClient(right) as client_async:
        with pytest.raises(NotAccepted):
            await client_async.submit(NEVER_SERVED, symbol="BTCUSDT", order_id="1")
    with Client(wrong) as client, pytest.raises(BrokerDown, match="invalid username-password pair") as down:
        client.submit(NEVER_SERVED, symbol="BTCUSDT", order_id="1")
    assert "canary" not in str(down.value)


def test_a_renewed_certificate_is_used_without_a_start(servers: dict[str, TlsServer], tmp_path: Path) -> None:
    server, mine = servers["server"], Papers(tmp_path)
    right = server.papers
    Path(mine["ca.pem"]).write_bytes(Path(right["ca.pem"]).read_bytes())
    with Client(server.url_with(mine.query())) as client:
        with pytest.raises(BrokerDown, match="client's certificate"):
            client.submit(NEVER_SERVED, symbol="BTCUSDT", order_id="1")
        for name in ("client.pem", "client.key"):
            Path(mine[name]).write_bytes(Path(right[name]).read_bytes())
        with pytest.raises(NotAccepted):  # let in, and told that there is no such lane
            client.submit(NEVER_SERVED, symbol="BTCUSDT", order_id="1")


# -- wrong ones -------------------------------------------------------------------------------------------------------

# A server that hangs up may do so before it is heard why.
HUNG_UP = "wants to see a client's certificate .*of its own CA and not expired"

# What is wrong, at which server, with which part of a URL, and what is said of it.
WRONG: dict[str, tuple[str, dict[str, str | None], str]] = {
    "no certificate": ("server", {"certificate": None}, f"name it with ssl_certfile|{HUNG_UP}"),
    "of another CA": ("server", {"certificate": "stranger"}, f"does not trust the client's certificate|{HUNG_UP}"),
    "expired": ("server", {"certificate": "expired"}, f"certificate .*expired: renew it|{HUNG_UP}"),
    "server elsewhere": ("elsewhere-server", {}, "certificate is for another name"),
    "server expired": ("expired-server", {}, "server's certificate has expired"),
    "server of another CA": ("stranger-server", {}, "of a CA that is not trusted here"),
    "no CA": ("server", {"ca": None}, "of a CA that is not trusted here"),
}


@pytest.mark.parametrize("name", WRONG)
def test_nothing_is_sent_with_a_wrong_certificate_and_the_cause_is_told(
    servers: dict[str, TlsServer], papers: Papers, run: Run, name: str
) -> None:
    place, how, said = WRONG[name]
    url = servers[place].url_with(papers.query(**how))
    for _ in range(5):  # who is first, the refusal or what was written, is left to chance
        with Client(url, timeout_s=5) as client, pytest.raises(BrokerDown, match=said):
            client.submit(LANE, symbol="BTCUSDT", order_id="1")
    code, out, err = run(url, "submit", str(LANE), "--symbol", "BTCUSDT", "--order-id", "1")
    assert (code, out) == (Exit.UNREACHABLE, "")
    assert re.search(said, err)
    assert "docs/SECURITY.md" in err
    for line in ("status", "results", "audit"):
        code, _, err = run(url, line)
        assert code == Exit.UNREACHABLE
        assert re.search(said, err)
        assert "Traceback" not in err


@pytest.mark.parametrize("name", WRONG)
async def test_nor_by_asyncio(servers: dict[str, TlsServer], papers: Papers, name: str) -> None:
    place, how, said = WRONG[name]
    async with AsyncClient(servers[place].url_with(papers.query(**how)), timeout_s=5) as client:
        for _ in range(5):
            with pytest.raises(BrokerDown, match=said):
                await client.submit(LANE, symbol="BTCUSDT", order_id="1")


@pytest.mark.parametrize("command", ["worker", "jobs"])
def test_a_process_that_is_not_let_in_ends_with_the_cause(
    servers: dict[str, TlsServer], papers: Papers, command: str
) -> None:
    children: list[Child] = []
    url = servers["server"].url_with(papers.query("stranger"))
    try:
        child = start(children, [command], {"CANCELQ_REDIS_URL": url, **accounts("http://127.0.0.1:1")})
        child.expect("client's certificate")
        assert child.code() == Exit.UNREACHABLE
        told = "".join(child.seen)
        assert "Traceback" not in told
        assert "PRIVATE" not in told
    finally:
        for child in children:
            child.close()


def test_plain_words_to_a_server_that_speaks_tls(servers: dict[str, TlsServer], run: Run) -> None:
    code, _, err = run(servers["server"].url_with("", scheme="redis"), "status")
    assert code == Exit.UNREACHABLE
    assert "with rediss:// if it speaks TLS" in err


def test_tls_to_a_server_that_does_not(papers: Papers, venue: Venue, run: Run) -> None:
    """Any port that is not TLS': here the simulated venue's."""
    port = venue.base_url.rpartition(":")[2]
    code, _, err = run(f"rediss://127.0.0.1:{port}/0?{papers.query()}", "status")
    assert code == Exit.UNREACHABLE
    assert "no TLS is spoken on that port" in err


@pytest.mark.parametrize(
    ("query", "said"),
    [
        (
            "ssl_ca_certs={ca.pem}&ssl_certfile={none.pem}",
            "ssl_certfile=.*none.pem, which cannot be read: No such",
        ),
        ("ssl_ca_certs={none.pem}", "ssl_ca_certs=.*none.pem, which cannot be read"),
        ("ssl_ca_certs={junk.pem}", "ssl_ca_certs=.*junk.pem, which holds no certificate"),
        ("ssl_certfile={client.pem}&ssl_keyfile={stranger.key}", "is not that of the certificate"),
        ("ssl_certfile={client.pem}&ssl_keyfile={junk.pem}", "no certificate with its key can be read"),
        ("ssl_certfile={client.pem}", "no certificate with its key can be read"),
        ("ssl_keyfile={client.key}", "ssl_keyfile without ssl_certfile"),
        ("ssl_certfil={client.pem}", "unknown option; is ssl_certfile meant"),
    ],
)
def test_what_cannot_work_is_told_before_anything_is_reached(papers: Papers, run: Run, query: str, said: str) -> None:
    filled = re.sub(r"\{([\w.-]+)\}", lambda found: papers[found[1]], query)
    with pytest.raises(UrlError, match=said):
        Client(f"rediss://127.0.0.1:1/0?{filled}")
    code, _, err = run(f"rediss://:canary-password@127.0.0.1:1/0?{filled}", "status")
    assert code == Exit.CONFIGURATION
    assert re.search(said, err)
    assert "CANCELQ_REDIS_URL" in err
    assert "canary" not in err


def test_certificates_without_tls_are_told(papers: Papers, run: Run) -> None:
    code, _, err = run(f"redis://127.0.0.1:1/0?{papers.query()}", "status")
    assert code == Exit.CONFIGURATION
    assert "rediss" in err
