"""The private order stream, where a venue has one: no frame harms, every state has its word, every push its order."""

from __future__ import annotations

import gzip
import json
from typing import Any
from urllib.parse import urlsplit

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from cancelq_worker.venues.port import Frame, OrderStream, Plan, Push, Word
from tests.conformance.suite.claims import objects
from tests.conformance.suite.dossier import Dossier
from tests.conformance.suite.mutations import NOISE, mutated
from tests.conformance.suite.papers import Pushed, fill
from tests.conformance.suite.test_cancels import check_bounded
from tests.conformance.suite.written import places, target


def test_a_venue_with_a_stream_has_recorded_pushes(dossier: Dossier) -> None:
    assert bool(dossier.papers.pushes) == (dossier.venue.stream is not None)


def test_its_waits_are_sane(dossier: Dossier, stream: OrderStream) -> None:
    assert stream.silent_most_s > 0
    assert stream.ping_every_s >= 0
    assert stream.ping_every_s < stream.silent_most_s, "a ping has to have its answer before the silence is too long"
    assert stream.renew_every_s >= 0


def test_the_login_is_signed_as_other_clients_sign_it(dossier: Dossier, stream: OrderStream) -> None:
    keys = dossier.papers.keys
    hello = stream.hello(keys.login_ms)
    if keys.login is None:
        assert not any(keys.secret in text for text in hello)
    else:
        assert orjson.loads(hello[0]) == keys.login


def test_no_secret_is_told(dossier: Dossier, stream: OrderStream) -> None:
    keys = dossier.papers.keys
    address = stream.address(dossier.ws_url, "listen-key-1")
    assert urlsplit(address).scheme in ("ws", "wss")
    for text in (address, repr(stream), str(stream), *stream.hello(keys.login_ms), stream.ping(keys.login_ms)):
        assert keys.secret not in text
    assert not keys.passphrase or keys.passphrase not in address + repr(stream)


def test_every_state_has_its_word_and_every_push_its_order(dossier: Dossier, pushed: Pushed) -> None:
    venue = dossier.venue
    for state, word in dossier.papers.states[pushed.states].items():
        (push,) = pushes(dossier, pushed, written(dossier, pushed, state))
        assert push.reply.word in ({word, Word.TRIGGERED} if word is Word.FILLED else {word}), f"{state}: {push}"
        for named in pushed.intents:
            plan = venue.admit(target(dossier, named).fields)
            assert isinstance(plan, Plan)
            assert set(plan.orders) & set(push.keys), f"{named} does not hear of {push.keys}"


def test_a_state_that_is_not_listed_ends_nothing(dossier: Dossier, pushed: Pushed) -> None:
    for state in ("", "cancel", "CANCELLED?", "0"):
        for push in pushes(dossier, pushed, written(dossier, pushed, state)):
            assert push.reply.word is Word.UNCLEAR


@settings(max_examples=150)
@given(data=st.data())
def test_any_frame_is_read_and_ends_only_orders_it_names(
    dossier: Dossier, stream: OrderStream, data: st.DataObject
) -> None:
    pushed = data.draw(st.sampled_from(dossier.papers.pushes))
    words = dossier.papers.states[pushed.states]
    frame = data.draw(mutated(written(dossier, pushed, data.draw(st.sampled_from(list(words))))))
    for push in pushes(dossier, pushed, frame):
        check_bounded(push.reply)
        texts = {str(value) for row in objects(frame) for value in row.values() if isinstance(value, str | int)}
        assert push.reply.order_id in texts or push.reply.client_order_id in texts
        for key in push.keys:
            assert not set(key) & set(" ,"), f"{key!r} would not survive a state line"


@settings(max_examples=100)
@given(noise=NOISE, zipped=st.booleans())
def test_noise_says_nothing(dossier: Dossier, stream: OrderStream, noise: bytes, zipped: bool) -> None:
    frames: list[str | bytes] = [noise, noise.decode("latin-1"), noise.decode("utf-8", "replace")]
    for frame in [*frames, gzip.compress(noise)] if zipped else frames:
        read = stream.read(frame)
        assert read.pushes == []
        assert not read.live


def written(dossier: Dossier, pushed: Pushed, state: str) -> Any:
    values = places(dossier)
    return fill(pushed.frame, row=fill(dict(pushed.row), state=state, **values), **values)


def pushes(dossier: Dossier, pushed: Pushed, frame: Any) -> list[Push]:
    packed = json.dumps(frame).encode()
    stream = dossier.venue.stream
    assert stream is not None
    read: Frame = stream.read(gzip.compress(packed) if pushed.zipped else packed.decode())
    return read.pushes
