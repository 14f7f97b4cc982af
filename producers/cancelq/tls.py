"""TLS to the server: what a URL must hold for it, and what goes wrong with certificates, in words.

    rediss://worker:…@redis.desk:6379/0?ssl_ca_certs=ca.pem&ssl_certfile=worker.pem&ssl_keyfile=worker.key

The names are redis-py's. `ssl_ca_certs`: whom to believe that the server is the server; `ssl_certfile`, `ssl_keyfile`:
what this client shows of itself, where the server wants that. The files are read again for every connection, so that
new ones are used without a start. Nothing here tells what is in a key.
"""

import inspect
import re
import ssl
from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, Final

import redis

FILES: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")

_ENDED: Final = "the server ended the connection as soon as TLS stood"

# What OpenSSL and the server say, and what is to be done. The first that fits counts.
_ADVICE: Final = tuple(
    (re.compile(said, re.IGNORECASE), advice)
    for said, advice in (
        (
            r"alert[ _]certificate[ _]required|alert[ _]handshake[ _]failure",
            "the server wants to see a client's certificate: name it with ssl_certfile and ssl_keyfile in the URL",
        ),
        (
            r"alert[ _]unknown[ _]ca|alert[ _](bad|unsupported)[ _]certificate",
            "the server does not trust the client's certificate (ssl_certfile): it wants one of its own CA",
        ),
        (
            r"alert[ _]certificate[ _](expired|revoked|unknown)",
            "the server refuses the client's certificate (ssl_certfile), which has probably expired: renew it",
        ),
        (
            r"certificate verify failed.*has expired",
            "the server's certificate has expired: renew it, and look at this machine's clock",
        ),
        (
            r"certificate verify failed.*not yet valid",
            "the server's certificate is not valid yet: look at the clocks",
        ),
        (
            r"certificate verify failed.*(mismatch|not valid for)",
            "the server's certificate is for another name: use a name in the URL that stands in the certificate",
        ),
        (
            r"certificate verify failed",
            "the server's certificate is of a CA that is not trusted here: name its CA with ssl_ca_certs in the URL",
        ),
        (
            _ENDED,
            "it wants to see a client's certificate (ssl_certfile), of its own CA and not expired",
        ),
        (r"wrong[ _]version[ _]number|record layer failure", "no TLS is spoken on that port"),
        (r"key[ _]values[ _]mismatch", "the key (ssl_keyfile) is not that of the certificate (ssl_certfile)"),
        (r"\[ssl\] pem lib|no_start_line|no_certificate_or_crl", "one of the URL's ssl_ files is no PEM file"),
    )
)


def advice(said: str) -> str:
    """What to do about an error of a connection, by its words; "" if they are not about TLS."""
    return next((advice for pattern, advice in _ADVICE if pattern.search(said)), "")


def welcomed(connection: Any) -> None:
    """The first words on a connection that speaks TLS; for redis-py's `redis_connect_func`. A server that does not like
    the client's certificate may have hung up before they are read."""
    try:
        connection.on_connect()
    except redis.ConnectionError as trouble:
        if _says_nothing(trouble):
            raise redis.ConnectionError(f"{trouble}; {_ENDED}") from trouble
        raise


async def async_welcomed(connection: Any) -> None:
    """As `welcomed`, for asyncio."""
    try:
        await connection.on_connect()
    except redis.ConnectionError as trouble:
        if _says_nothing(trouble):
            raise redis.ConnectionError(f"{trouble}; {_ENDED}") from trouble
        raise


def _says_nothing(trouble: redis.ConnectionError) -> bool:
    """Whether the connection just broke. What the server stated (a wrong password, that it is loading) are errors of
    their own."""
    return type(trouble) is redis.ConnectionError and not advice(str(trouble))


def flaw(options: Mapping[str, Any]) -> str:
    """What cannot work of a connection's options, as redis-py reads them from a URL; "" if nothing is wrong. Reads the
    files they name."""
    kind = options.get("connection_class", redis.Connection)
    asked = sorted(name for name in options if name.startswith("ssl_"))
    if asked and not issubclass(kind, redis.SSLConnection):
        return f"has {asked[0]}, and TLS is asked for by rediss instead of redis at its beginning"
    if unknown := sorted(set(options) - _known(kind)):
        # Not shown: of a URL that was not quoted well it may be a piece of the password.
        meant = get_close_matches(unknown[0], _known(kind), 1)
        return f"has an unknown option{f'; is {meant[0]} meant?' if meant else ''}"
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        return "has ssl_keyfile without ssl_certfile: the certificate that belongs to the key"
    return _flaw_of_files(options) if asked else ""


def _flaw_of_files(options: Mapping[str, Any]) -> str:
    for name in (name for name in FILES if name in options):
        try:
            with Path(options[name]).open("rb"):
                pass
        except OSError as error:
            return f"has {name}={options[name]}, which cannot be read: {error.strerror}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authority, certificate = options.get("ssl_ca_certs"), options.get("ssl_certfile")
    key = options.get("ssl_keyfile", certificate)
    try:
        if authority is not None:
            context.load_verify_locations(authority)
    except ssl.SSLError:
        return f"has ssl_ca_certs={authority}, which holds no certificate in PEM"
    try:
        if certificate is not None:
            # Without a password here OpenSSL would ask for one on the terminal.
            context.load_cert_chain(certificate, key, password=options.get("ssl_password", ""))
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"has a key, {key}, that is not that of the certificate {certificate}"
        return f"has ssl_certfile={certificate}, and no certificate with its key can be read in PEM there and in {key}"
    return ""


@cache
def _known(kind: type) -> frozenset[str]:
    """What a URL may hold for connections of this kind."""
    takes = (inspect.signature(vars(one)["__init__"]).parameters for one in kind.__mro__ if "__init__" in vars(one))
    return frozenset({"connection_class", "max_connections", *(name for names in takes for name in names)})
