"""Signing: the bytes that were encoded are the bytes that are sent, and no secret leaves by another door."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Plan, Request, Signed, Stage
from tests.conformance.suite.dossier import Dossier
from tests.conformance.suite.test_routes import serving

AT_MS = 1_700_000_000_000


def test_signatures_are_those_that_other_clients_computed(dossier: Dossier, vector: Mapping[str, Any]) -> None:
    request = Request(vector["method"], vector["path"], vector["query"], vector["body"].encode())
    signed = dossier.venue.sign(request, dossier.papers.keys.at_ms)
    assert signature(signed, vector["header"]) == vector["signature"]


def test_what_was_encoded_is_what_is_sent(dossier: Dossier) -> None:
    """A venue may put its signature into the query; everything else stays as it was, in its order."""
    for request in requests(dossier):
        sent = dossier.venue.sign(request, AT_MS).request
        assert (sent.method, sent.path, sent.body) == (request.method, request.path, request.body)
        if sent.query != request.query:
            ours = parse_qsl(request.query, keep_blank_values=True)
            theirs = parse_qsl(sent.query, keep_blank_values=True)
            assert [item for item in theirs if item in ours] == ours
            assert len(theirs) > len(ours)


@settings(max_examples=50)
@given(at_ms=st.integers(1_600_000_000_000, 1_999_999_999_999))
def test_a_signature_depends_on_the_call_and_the_time_alone(dossier: Dossier, at_ms: int) -> None:
    one, other = dossier.open(), dossier.open()
    said, signed = set(), set()
    for request in requests(dossier)[:4]:
        once = one.sign(request, at_ms)
        assert once == other.sign(request, at_ms)
        assert once != one.sign(request, at_ms + 1)
        said.add((request.query, request.body))
        signed.add((once.request.query, *sorted(once.headers.items())))
    assert len(signed) >= len(said), "two calls that say different things have different signatures"


def test_no_secret_is_told(dossier: Dossier) -> None:
    """Whatever is printed, logged or written into a URL or a body; a passphrase travels in its header alone."""
    keys = dossier.papers.keys
    venue = dossier.venue
    told = [repr(venue), str(venue), repr(vars(venue)), repr(venue.stream)]
    for request in requests(dossier):
        signed = venue.sign(request, AT_MS)
        told += [repr(request), repr(signed), str(signed), signed.request.path, signed.request.query]
        told.append(signed.request.body.decode())
        assert not any(keys.secret in value for value in signed.headers.values())
    told += [repr(venue.probe_request()), repr(venue.time_requests)]
    for text in told:
        assert keys.secret not in text
        assert not keys.passphrase or keys.passphrase not in text


def test_a_signed_call_is_not_printed_with_its_signature(dossier: Dossier) -> None:
    """At some venues it is as good as a cancel for a few seconds."""
    for request in requests(dossier):
        signed = dossier.venue.sign(request, AT_MS)
        found = {*signed.headers.values(), *dict(parse_qsl(signed.request.query)).values()}
        assert not any(value in repr(signed) for value in found if len(value) >= 40)


def test_time_probe_and_the_question_about_a_key_are_reads(dossier: Dossier) -> None:
    rights = dossier.venue.rights_request()
    for request in (*dossier.venue.time_requests, dossier.venue.probe_request(), *([rights] if rights else [])):
        assert request.method == "GET"
        assert request.body == b""


def requests(dossier: Dossier) -> list[Request]:
    """One call of every sort."""
    venue, made = dossier.venue, []
    for fields in dossier.intents():
        plan = venue.admit(fields)
        assert isinstance(plan, Plan)
        target = dossier.target(fields)
        for stage, name in ((plan.start, plan.cancel_class), (Stage.LOOK, plan.look_class)):
            made += [venue.encode(r, [target]) for r in serving(venue, stage, name) if r.least == 1]
    rights = venue.rights_request()
    return [*made, venue.probe_request(), *([rights] if rights else [])]


def signature(signed: Signed, header: str) -> str:
    """Where the venue wants it: in a header, or in the query."""
    return signed.headers[header] if header else dict(parse_qsl(signed.request.query))["signature"]
