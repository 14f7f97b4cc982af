"""Intents on their way into one lane: what to send, and what the answers mean. No I/O."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, TypeVar

from redis.exceptions import RedisError

from cancelq.contract import Intent, Lane, check_size, wire_fields
from cancelq.errors import (
    BatchIncomplete,
    BrokerDown,
    BrokerRefused,
    CancelqError,
    IntentError,
    NotAccepted,
    Uncertain,
    Unconfirmed,
)
from cancelq.link import Answers, Command

# Intents per round trip.
CHUNK = 500

IntentLike = Intent | Mapping[str, object]
TicketT = TypeVar("TicketT")


class Batch:
    """The books of one call: commands out by `chunks`, answers in by `book`, then `the_one` or `all`.

    `replicas`: how many of the server's replicas must have an intent before it counts as queued; they may take
    `wait_ms` for each round trip.
    """

    def __init__(self, lane: Lane, prepared: list[dict[str, str]], replicas: int = 0, wait_ms: float = 0.0) -> None:
        self.lane = lane
        self._prepared = prepared
        self._wait: list[Command] = [("WAIT", str(replicas), str(max(1, int(wait_ms))))] if replicas else []
        self._replicas = replicas
        # From which intent on they are on the server, and perhaps on no replica.
        self._confirmed_to: int | None = None
        # One for each intent that was answered: its entry id, None if the server refused it.
        self._entry_ids: list[str | None] = []
        self._in_chunk = 0
        self._unanswered = 0
        self._failure: BaseException | None = None

    def chunks(self) -> Iterator[list[Command]]:
        """The commands of each round trip; each is booked before the next is asked for.

        After a failure there are no more: what a full server refused once it will refuse again.
        """
        head = ("XADD", self.lane.inbox, "NOMKSTREAM", "*")
        unsent = iter(self._prepared)
        while self._failure is None and (chunk := list(islice(unsent, CHUNK))):
            self._in_chunk = len(chunk)
            yield [(*head, *chain.from_iterable(fields.items())) for fields in chunk] + self._wait

    def book(self, answers: Answers) -> None:
        """Notes the answers to a chunk."""
        begun = len(self._entry_ids)
        for reply in answers.replies[: self._in_chunk]:
            if isinstance(reply, bytes):
                self._entry_ids.append(reply.decode())
                continue
            self._entry_ids.append(None)
            refused = BrokerRefused(reply) if isinstance(reply, RedisError) else NotAccepted(str(self.lane))
            self._failure = self._failure or refused
        self._unanswered = max(0, self._in_chunk - len(answers.replies))
        self._failure = self._failure or answers.lost
        if (
            self._wait
            and any(self._entry_ids[begun:])
            and (why := self._unconfirmed(answers.replies[self._in_chunk :]))
        ):
            self._confirmed_to = begun
            self._failure = self._failure or why

    def _unconfirmed(self, waited: Sequence[Any]) -> CancelqError | None:
        """Why the replicas did not confirm a chunk, by the reply of WAIT, if there was one."""
        if not waited:
            return CancelqError("no word from the replicas")
        if isinstance(waited[0], RedisError):
            return BrokerRefused(waited[0])
        if waited[0] < self._replicas:
            return CancelqError(f"{waited[0]} of {self._replicas} replicas had it after {self._wait[0][2]} ms")
        return None

    def book_unsent(self, failure: BrokerDown) -> None:
        """Notes that a chunk could not be sent."""
        self._failure = failure

    def the_one(self, ticket: Callable[[str, str], TicketT]) -> TicketT:
        """The ticket of a batch of one; else the error that says why there is none."""
        (fields,) = self._prepared
        if self._unanswered:
            raise Uncertain(str(self.lane), fields, self._failure) from self._failure
        if self._confirmed_to is not None:
            raise Unconfirmed(str(self.lane), fields, self._failure) from self._failure
        if self._failure is not None:
            raise self._failure
        return ticket(fields["id"], str(self._entry_ids[0]))

    def all(self, ticket: Callable[[str, str], TicketT]) -> list[TicketT]:
        """A ticket for each intent; else the error that says which are missing and why."""
        queued: list[TicketT] = []
        refused: list[dict[str, str]] = []
        unconfirmed: list[dict[str, str]] = []
        for at, (fields, entry_id) in enumerate(zip(self._prepared, self._entry_ids, strict=False)):
            if entry_id is None:
                refused.append(fields)
            elif self._confirmed_to is not None and at >= self._confirmed_to:
                unconfirmed.append(fields)
            else:
                queued.append(ticket(fields["id"], entry_id))
        if len(queued) == len(self._prepared):
            return queued
        unanswered_from = len(self._entry_ids)
        unsent_from = unanswered_from + self._unanswered
        if not (queued or unconfirmed or self._unanswered) and self._failure is not None:
            raise self._failure
        raise BatchIncomplete(
            str(self.lane),
            queued=queued,
            uncertain=[*unconfirmed, *self._prepared[unanswered_from:unsent_from]],
            not_queued=[*refused, *self._prepared[unsent_from:]],
            cause=self._failure,
        ) from self._failure


def replicas_of(durable: object) -> int:
    """How many replicas `durable` asks for. It is typed as an object, like the fields of an intent that stand beside it
    in a call; `TypeError` if it is neither a truth value nor a number."""
    if not isinstance(durable, int) or durable < 0:
        raise TypeError(f"durable is True, or how many replicas must have it, not {durable!r:.40}")
    return int(durable)


def prepare_one(intent: IntentLike | None, fields: Mapping[str, object]) -> list[dict[str, str]]:
    """The entry of a call that gives an intent, or its fields by name; `IntentError` if it breaks a rule."""
    if intent is None:
        intent = fields
    elif fields:
        raise TypeError("give an intent or its fields by name, not both")
    prepared = [_fields_of(intent)]
    _name([fields for fields in prepared if fields["id"] is _ID_SHAPE])
    return prepared


def prepare_many(intents: Iterable[IntentLike]) -> list[dict[str, str]]:
    """The entries, every one with an id; `IntentError` with the position of the first to break a rule."""
    prepared: list[dict[str, str]] = []
    for position, intent in enumerate(intents):
        try:
            prepared.append(_fields_of(intent))
        except IntentError as error:
            raise IntentError(error.field, error.detail, position) from None
    _name([fields for fields in prepared if fields["id"] is _ID_SHAPE])
    return prepared


# As random as a UUID; the letter in front tells ids made here from a desk's own.
_ID_BYTES = 16
# Stands where an id is to come.
_ID_SHAPE = "c-" + "0" * 2 * _ID_BYTES


def _fields_of(intent: IntentLike) -> dict[str, str]:
    fields = intent.to_fields() if isinstance(intent, Intent) else wire_fields(intent)
    if "id" not in fields:
        fields["id"] = _ID_SHAPE
        check_size(fields)
    return fields


def _name(intents: list[dict[str, str]]) -> None:
    """Gives each an id of its own; all at once, as asking the system for randomness is what costs."""
    digits = os.urandom(_ID_BYTES * len(intents)).hex()
    width = 2 * _ID_BYTES
    for at, fields in enumerate(intents):
        fields["id"] = "c-" + digits[at * width : (at + 1) * width]
