"""What Celery itself would discard, end on or be stopped by: parked once, and the worker goes on.

Messages come by bare kombu, or as bytes in the list, from producers that are careless in every way.
"""

import base64
import json
import pickle
import uuid
from typing import Any, NamedTuple

import psycopg
import pytest

from config.settings import settings
from tests.factories import a_customer, an_envelope, an_event
from tests.looking import one, wallet
from tests.worker.conftest import Station
from tests.worker.support import (
    TASK,
    Kept,
    await_charged,
    body_of,
    charged,
    children,
    kept_inputs,
    task_headers,
)


class Wrong(NamedTuple):
    """A message that is no envelope for a task."""

    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]
    said: str
    reason: str = "message_unreadable"


def wrong(body: bytes, said: str, headers: dict[str, Any] | None = None, **more: Any) -> Wrong:
    reason = more.pop("reason", "message_unreadable")
    return Wrong(body, task_headers() if headers is None else headers, more, said, reason)


def named(marker: str) -> bytes:
    """A body that is right but for what each test makes wrong around it."""
    return body_of(f'{{"v":1,"events":["{marker}"]}}')


UNKNOWN = {**task_headers(), "task": "billing.charge"}

WRONG: dict[str, Wrong] = {
    "a pickle": wrong(pickle.dumps([("x",), {}, {}]), "", content_type="application/x-python-serialize"),
    "a pickle that says it is JSON": wrong(pickle.dumps([("y",), {}, {}]), "can't be decoded"),
    "a body that is not JSON": wrong(b"good day", "can't be decoded"),
    "a body that is not an array": wrong(b"18", "not a task message"),
    "a body that is null": wrong(b"null", "not a task message"),
    "a body that is an object": wrong(b'{"v":1,"events":[]}', "not a task message"),
    "a body of two parts": wrong(b'[["x"],{}]', "not a task message"),
    "a body of an unknown type": wrong(named("b"), "", content_type="application/x-unheard-of"),
    "no body": wrong(b"", "not a task message"),
    "a compressed body that is not": wrong(named("c"), "can't be decoded", {**task_headers(), "compression": "gzip"}),
    "arguments that are no list": wrong(b'[{"a":1},{},{}]', "list of arguments"),
    "arguments that are text": wrong(b'["text",{},{}]', "list of arguments"),
    "named arguments that are null": wrong(b'[["x"],null,{}]', "an object of named ones"),
    "options that are a list": wrong(b'[["x"],{},[1]]', "an object of options"),
    "no arguments": wrong(body_of(), "record_usage takes one string"),
    "two arguments": wrong(body_of("a", "b"), "record_usage takes one string"),
    "an argument that is an object": wrong(body_of({"v": 1, "events": []}), "record_usage takes one string"),
    "an argument by name": wrong(body_of(named={"envelope": "{}"}), "record_usage takes one string"),
    "no headers": wrong(named("d"), "it names no task", {}),
    "no id": wrong(named("e"), "the headers `task` and `id` are text", {"task": TASK}),
    "an id that is a list": wrong(named("f"), "the headers `task` and `id` are text", {"task": TASK, "id": [1]}),
    "a task name that is a list": wrong(named("g"), "", {**task_headers(), "task": ["x"]}),
    "an unregistered task": wrong(named("h"), "there is no task 'billing.charge'", UNKNOWN, reason="task_unknown"),
    "no task name": wrong(named("i"), "there is no task None", {**task_headers(), "task": None}, reason="task_unknown"),
    "a message for the task that parks": wrong(
        body_of("not base64", "no reason", "x"),
        "park_message takes",
        {**task_headers(), "task": "centavo.park_message"},
    ),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_message_that_is_none_is_parked_once(station: Station, wrong: Wrong) -> None:
    """With its body and a reason to read, however often it is delivered; the next envelope is charged."""
    customer = a_customer(uuid.uuid4().hex, credit="1")
    before = {k.raw for k in kept_inputs()}

    for _ in range(2):
        station.broker.publish(wrong.body, wrong.headers, **wrong.properties)
    station.broker.send(an_envelope(an_event(customer)))

    await_charged(customer, 1)
    station.broker.await_drained()
    (kept,) = [k for k in kept_inputs() if k.raw not in before]
    assert (kept.reason, kept.times_seen) == (wrong.reason, 2)
    assert wrong.said in kept.detail
    assert kept.detail.strip() != ""
    assert kept.raw == wrong.body or json.loads(kept.raw) == json.loads(wrong.body)[:2]
    assert str(wallet(customer)).startswith("0.97")


#: RabbitMQ lets nobody into its queues but by its protocol.
on_valkey = pytest.mark.parametrize("station", ["valkey"], indirect=True)

PUSHED: dict[str, tuple[bytes, str]] = {
    "an envelope without a message": (an_envelope(b'"pushed"'), "KeyError: 'properties'"),
    "text": (b"hello", "it is not JSON"),
    "a blank": (b" ", "it is not JSON"),
    "bytes": (b"\x80\x04\x95\xff", "it is not JSON"),
    "a list": (b"[1,2,3]", "TypeError"),
    "a number": (b"17", "TypeError"),
    "nesting": (b"[" * 5000 + b"]" * 5000, "it is not JSON"),
    "no delivery tag": (json.dumps({"body": "", "properties": {}}).encode(), "KeyError: 'delivery_tag'"),
    "a delivery tag that is a list": (
        json.dumps({"body": "", "properties": {"delivery_tag": [1]}}).encode(),
        "its delivery_tag is text",
    ),
    "headers that are a list": (
        json.dumps({"body": "", "headers": [1], "properties": {"delivery_tag": "t"}}).encode(),
        "its headers are an object",
    ),
    "a body that is not Base64": (
        json.dumps({"body": "a", "properties": {"delivery_tag": "t", "body_encoding": "base64"}}).encode(),
        "Error",
    ),
    "a body in no encoding there is": (
        json.dumps({"body": "a", "properties": {"delivery_tag": "t", "body_encoding": "rot13"}}).encode(),
        "AttributeError",
    ),
}


@on_valkey
@pytest.mark.parametrize(("item", "said"), PUSHED.values(), ids=PUSHED)
def test_what_lies_in_the_queue_and_is_no_message_is_parked_once(station: Station, item: bytes, said: str) -> None:
    """The worker's main process reads it and lives; the next envelope is charged."""
    customer = a_customer(uuid.uuid4().hex, credit="1")
    before = {k.raw for k in kept_inputs()}

    for _ in range(2):
        station.valkey.push(item)
    station.broker.send(an_envelope(an_event(customer)))

    await_charged(customer, 1)
    station.broker.await_drained()
    (kept,) = [k for k in kept_inputs() if k.raw not in before]
    assert (kept.reason, kept.times_seen) == ("message_unreadable", 2)
    assert "is not a message as docs/wire-format.md describes it" in kept.detail
    assert said in kept.detail
    assert kept.raw == item
    assert station.worker.alive


HEADERS: dict[str, dict[str, Any]] = {
    "expired long ago": {"expires": "2001-01-01T00:00:00+00:00"},
    "expires nonsense": {"expires": "soon"},
    "expires a number": {"expires": 1},
    "a time limit of nothing": {"timelimit": [0.000001, 0.000001]},
    "a time limit that is text": {"timelimit": "ten"},
    "due in a year": {"eta": "2027-11-20T00:00:00+00:00"},
    "due nonsense": {"eta": "tomorrow"},
    "retries that are text": {"retries": "many"},
    "stamps that are no list": {"stamped_headers": 5, "stamps": 7},
    "groups, parents and shadows": {"group": "g", "parent_id": 5, "root_id": [1], "shadow": {"a": 1}, "chord": 5},
    "a language nobody speaks": {"lang": "klingon", "argsrepr": 5, "kwargsrepr": None, "origin": [1]},
}


@pytest.mark.parametrize("headers", HEADERS.values(), ids=HEADERS)
def test_no_header_can_make_usage_vanish_or_wait(station: Station, headers: dict[str, Any]) -> None:
    """The envelope is charged at once; nothing is parked, and the same child goes on."""
    customer = a_customer(uuid.uuid4().hex, credit="1")
    before, pool = kept_inputs(), children(station.worker)

    station.broker.send(an_envelope(an_event(customer)), **headers)

    await_charged(customer, 1)
    station.broker.await_drained()
    assert (kept_inputs(), children(station.worker)) == (before, pool)


def test_an_envelope_that_expired_may_come_twice(station: Station) -> None:
    """The headers of a message are not the identity of what is in it."""
    customer = a_customer(uuid.uuid4().hex, credit="1")
    envelope = an_envelope(*[an_event(customer) for _ in range(3)])

    station.broker.send(*[envelope] * 3, expires="2001-01-01T00:00:00+00:00")
    station.broker.await_drained()

    assert charged(customer) == 3
    assert one("SELECT count(*) FROM ledger_entries WHERE kind = 'usage' AND event_key = ANY("
               "SELECT key FROM usage_events WHERE customer_id = %s)", customer) == (3,)  # fmt: skip


def test_the_other_events_of_an_envelope_are_charged(station: Station) -> None:
    """One bad event of each kind that a parser gives up on, among good ones, on the real way in."""
    customer = a_customer(uuid.uuid4().hex, credit="1")
    deep = f'{{"customer":"{customer}","a":{"[" * 5000}{"]" * 5000}}}'.encode()
    bad = [f'{{"customer":"{customer}","quantity":NaN}}'.encode(), deep]
    envelope = an_envelope(an_event(customer), bad[0], an_event(customer), bad[1], an_event(customer))

    station.broker.send(envelope, envelope)

    await_charged(customer, 3)
    station.broker.await_drained()
    assert {k.raw: k.times_seen for k in kept_inputs() if k.raw in bad} == dict.fromkeys(bad, 2)


def test_half_a_character_in_the_envelope_costs_one_event(station: Station) -> None:
    """JSON can say a lone surrogate; no UTF-8 and no database text can."""
    customer = a_customer(uuid.uuid4().hex, credit="1")
    bad = f'{{"customer":"{customer}","key":"'.encode() + "\ud800".encode("utf-8", "surrogatepass") + b'"}'

    station.broker.send(an_envelope(an_event(customer), bad))

    await_charged(customer, 1)
    station.broker.await_drained()
    assert [k.reason for k in kept_inputs() if k.raw == bad] == ["event_malformed"]


def test_a_protocol_1_message_is_charged(station: Station) -> None:
    """An old producer names the task in the body; it is still an envelope."""
    customer = a_customer(uuid.uuid4().hex, credit="1")
    envelope = an_envelope(an_event(customer)).decode()
    body = {"task": TASK, "id": str(uuid.uuid4()), "args": [envelope], "kwargs": {}, "expires": "2001-01-01T00:00:00"}

    station.broker.publish(json.dumps(body).encode())

    await_charged(customer, 1)


def test_a_compressed_message_is_charged(station: Station) -> None:
    """As kombu's `compression="gzip"` sends it."""
    customer = a_customer(uuid.uuid4().hex, credit="1")

    station.broker.publish(body_of(an_envelope(an_event(customer)).decode()), task_headers(), compression="gzip")

    await_charged(customer, 1)


@on_valkey
def test_a_message_written_by_hand_is_charged(station: Station) -> None:
    """No exchange, no routing key, no priority: what the document asks for is enough, and no more is needed."""
    customer = a_customer(uuid.uuid4().hex, credit="1")

    station.valkey.push(by_hand(an_envelope(an_event(customer))))

    await_charged(customer, 1)


@on_valkey
@pytest.mark.parametrize("came_back", [False, True])
def test_an_event_that_postgres_refuses_costs_no_other(station: Station, came_back: bool) -> None:
    """Whether its envelope comes for the first time or again."""
    customer = a_customer(uuid.uuid4().hex, credit="1")
    refused = an_event(customer, key=f"refused {customer}").to_wire()
    with psycopg.connect(settings().required("database_url")) as owner:
        owner.execute(
            f"ALTER TABLE usage_events ADD CONSTRAINT c{customer} CHECK (key <> 'refused {customer}')".encode()
        )
    envelope = an_envelope(an_event(customer), refused, an_event(customer))

    station.valkey.push(by_hand(envelope, delivery_info={"redelivered": came_back}))

    await_charged(customer, 2)
    station.broker.await_drained()
    ((reason, detail),) = [(k.reason, k.detail) for k in kept_inputs() if k.raw == refused]
    assert reason == "unrecordable"
    assert detail.startswith("CheckViolation: ")


def by_hand(envelope: bytes, **properties: Any) -> bytes:
    """A message as it lies in the list, with no more in it than is needed."""
    message = {
        "body": base64.b64encode(body_of(envelope.decode())).decode(),
        "content-type": "application/json",
        "content-encoding": "utf-8",
        "headers": task_headers(),
        "properties": {"delivery_tag": str(uuid.uuid4()), "body_encoding": "base64", **properties},
    }
    return json.dumps(message).encode()


def test_parked_bytes_are_what_was_sent(station: Station) -> None:
    """So that a person can repair and replay them."""
    body = json.dumps([["not", "one", uuid.uuid4().hex], {}, {}]).encode()

    station.broker.publish(body, {**task_headers(), "task": "nowhere.to.be.found"})
    station.broker.await_drained()

    assert Kept("task_unknown", "there is no task 'nowhere.to.be.found'", 1, body) in kept_inputs()


def test_tasks_of_others_that_have_the_same_arguments_are_each_named(station: Station) -> None:
    """The bytes of a body do not say which task it is for, and most that a schedule sends have no arguments."""
    body = json.dumps([[uuid.uuid4().hex], {}, {}]).encode()

    for name in ("shop.close_day", "shop.send_mail", "shop.close_day"):
        station.broker.publish(body, {**task_headers(), "task": name})
        station.broker.await_drained()

    named = "there is no task 'shop.close_day'; there is no task 'shop.send_mail'"
    assert Kept("task_unknown", named, 3, body) in kept_inputs()
