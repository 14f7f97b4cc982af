"""What a client of BingX's sent, and whether its signature covers it.

The signature is the hex HMAC-SHA256 of all parameters but itself as `name=value`, joined by `&`, values as they
are before any percent-encoding. Neither path nor method is part of it. Sorting is asked for where the parameters
travel in a JSON body; in a query or a form the order in which they were sent is as good ("Signature
authentication" of BingX's documents).
"""

import hmac
import json
from typing import NamedTuple
from urllib.parse import parse_qsl

import orjson

from cancelq_worker.simulator.bingx.ask import Params
from cancelq_worker.simulator.bingx.codes import PARAMETER, Refusal
from cancelq_worker.simulator.core import Request

SIGNATURE = "signature"


class Sent(NamedTuple):
    """`params` holds every value as the text it was sent as; lists and objects of a JSON body stay what they are."""

    params: Params
    signature: str
    forms: tuple[str, ...]


def sent_by(request: Request) -> Sent:
    """Reads the query together with the form or JSON body. Raises `Refusal` for a body that is neither."""
    pairs: list[tuple[str, object]] = [*_decoded(request.query)]
    in_json = False
    if request.body:
        in_json = request.headers.get(b"content-type", b"").lower().startswith(b"application/json")
        pairs += _members(request.body) if in_json else _decoded(request.body)
    signed = [(name, value) for name, value in pairs if name != SIGNATURE]
    signature = next((str(value) for name, value in reversed(pairs) if name == SIGNATURE), "")
    forms = [_joined(sorted(signed, key=lambda pair: pair[0]))]
    if not in_json:
        forms.append(_joined(signed))
    return Sent(dict(signed), signature, tuple(forms))


def is_signed(sent: Sent, secret: str) -> bool:
    key = secret.encode()
    return any(
        hmac.compare_digest(hmac.digest(key, form.encode(), "sha256").hex().encode(), sent.signature.encode())
        for form in sent.forms
    )


def _decoded(raw: bytes) -> list[tuple[str, str]]:
    return parse_qsl(raw.decode("latin-1"), keep_blank_values=True)


def _members(body: bytes) -> list[tuple[str, object]]:
    try:
        # Numbers keep the spelling that was signed.
        held = json.loads(body, parse_int=str, parse_float=str, parse_constant=str)
    except ValueError:
        held = None
    if not isinstance(held, dict):
        raise Refusal(PARAMETER, "Invalid parameters, err:body is not a json object")
    return [(name, _plain(value)) for name, value in held.items() if value is not None]


def _plain(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value


def _joined(pairs: list[tuple[str, object]]) -> str:
    return "&".join(f"{name}={_written(value)}" for name, value in pairs)


def _written(value: object) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
