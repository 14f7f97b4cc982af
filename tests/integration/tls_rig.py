"""Servers that speak TLS and want a client's certificate, and certificates that are right and wrong."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import trustme
from redis import Redis

from cancelq.broker import client
from tests.ha import SentinelProcess
from tests.servers import RedisDebian

_FROM, _TO = datetime(2019, 1, 1, tzinfo=UTC), datetime(2020, 1, 1, tzinfo=UTC)


class Papers:
    """A CA and what it has issued, as files in a folder: `ca.pem`, `stranger-ca.pem`, and NAME.pem with NAME.key."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ours, theirs = trustme.CA(), trustme.CA()
        ours.cert_pem.write_to_path(self["ca.pem"])
        theirs.cert_pem.write_to_path(self["stranger-ca.pem"])
        self._keep("server", ours.issue_cert("127.0.0.1", "localhost"))
        self._keep("client", ours.issue_cert("client@desk"))
        self._keep("stranger", theirs.issue_cert("client@desk"))
        self._keep("expired", ours.issue_cert("client@desk", not_before=_FROM, not_after=_TO))
        self._keep("elsewhere-server", ours.issue_cert("redis.elsewhere"))
        self._keep("expired-server", ours.issue_cert("127.0.0.1", not_before=_FROM, not_after=_TO))
        self._keep("stranger-server", theirs.issue_cert("127.0.0.1"))
        Path(self["junk.pem"]).write_text("no certificate\n")

    def __getitem__(self, name: str) -> str:
        return str(self.folder / name)

    def query(self, certificate: str | None = "client", *, ca: str | None = "ca.pem", key: str | None = None) -> str:
        """The part of a URL that names these."""
        named = {"ssl_ca_certs": ca}
        if certificate:
            named |= {"ssl_certfile": f"{certificate}.pem", "ssl_keyfile": key or f"{certificate}.key"}
        return "&".join(f"{name}={self[file]}" for name, file in named.items() if file)

    def _keep(self, name: str, made: trustme.LeafCert) -> None:
        made.private_key_pem.write_to_path(self[f"{name}.key"])
        for nth, piece in enumerate(made.cert_chain_pems):
            piece.write_to_path(self[f"{name}.pem"], append=nth > 0)


def speaking_tls(papers: Papers, port: int, certificate: str = "server") -> dict[str, str]:
    """Settings of a server, or sentinel, that speaks nothing else and wants to see a certificate of `papers`' CA."""
    return {
        "port": "0",
        "tls-port": str(port),
        "tls-cert-file": papers[f"{certificate}.pem"],
        "tls-key-file": papers[f"{certificate}.key"],
        "tls-ca-cert-file": papers["ca.pem"],
        "tls-auth-clients": "yes",
    }


class TlsServer(RedisDebian):
    """A server that speaks nothing but TLS, and takes clients with a certificate of `papers`' CA only."""

    def __init__(self, folder: Path, papers: Papers, certificate: str = "server", **config: str) -> None:
        folder.mkdir()
        super().__init__(folder, durable=True)
        self.papers = papers
        self.config.update(speaking_tls(papers, self.port, certificate))
        self.config.update({name.replace("_", "-"): value for name, value in config.items()})

    @property
    def url(self) -> str:
        return self.url_with(self.papers.query())

    def url_with(self, query: str, scheme: str = "rediss") -> str:
        """A URL of this server with other certificates."""
        return f"{scheme}://127.0.0.1:{self.port}/0{'?' * bool(query)}{query}"

    def client(self) -> Redis:
        """As of any server; its own certificate is not looked at, which may be a wrong one on purpose."""
        return client(f"{self.url}&ssl_cert_reqs=none", socket_timeout=5)


class TlsSentinel(SentinelProcess):
    """A sentinel that speaks nothing but TLS, also to the servers it watches."""

    def __init__(self, folder: Path, papers: Papers, lines: Sequence[str]) -> None:
        super().__init__(folder, [])
        self.papers = papers
        settings = {**speaking_tls(papers, self.port), "tls-replication": "yes"}
        with self._conf.open("a") as file:
            file.writelines(f"{line}\n" for line in (*(f"{n} {v}" for n, v in settings.items()), *lines))

    def client(self) -> Redis:
        return client(f"rediss://127.0.0.1:{self.port}/0?{self.papers.query()}", socket_timeout=5)
