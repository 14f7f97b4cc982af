"""The certificate that a server shows: how long it is good for. One that is not good ends every connection."""

from __future__ import annotations

import asyncio
import ssl
import time
from typing import Any

from cancelq.broker import Broker
from cancelq_worker.doctor.findings import About, Finding
from cancelq_worker.doctor.patient import Patient, Server

SOON_S = 21 * 86_400


async def server_certificate(p: Patient, s: Server) -> list[Finding]:
    if not s.url.startswith("rediss://"):
        return []
    about, ends_s = About("doors.certificate", s.subject), await _end_of(Broker.read(s.url).options)
    if ends_s is None:
        return [about.unknown("its certificate is not looked at (ssl_cert_reqs=none): anybody could stand in for it")]
    return [judge_end(about, ends_s - time.time())]


def judge_end(about: About, left_s: float) -> Finding:
    days = round(left_s / 86_400)
    if left_s < SOON_S:
        told = f"the server's certificate ends in {days} days: from then on nobody connects"
        return about.warn(told, "give the server a new one, and have it read (CONFIG SET tls-cert-file …)", days=days)
    return about.ok(f"the server's certificate is good for {days:,} days", days=days)


async def _end_of(options: dict[str, Any]) -> float | None:
    """The end of the server's certificate, epoch seconds; None where the URL says not to look at it. Raises OSError."""
    context = ssl.create_default_context(cafile=options.get("ssl_ca_certs"))
    context.check_hostname = str(options.get("ssl_check_hostname", "true")).lower() not in ("false", "0", "no")
    if options.get("ssl_certfile"):
        context.load_cert_chain(options["ssl_certfile"], options.get("ssl_keyfile"), options.get("ssl_password"))
    if str(options.get("ssl_cert_reqs", "required")) == "none":
        return None
    host, port = options.get("host", "localhost"), int(options.get("port", 6379))
    _, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        shown = writer.get_extra_info("peercert")
        return float(ssl.cert_time_to_seconds(shown["notAfter"]))
    finally:
        writer.close()
