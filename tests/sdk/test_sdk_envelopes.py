"""Envelopes: when they leave, how large they get, and what is in them."""

import json
import time
from datetime import UTC, datetime

import pytest

from centavo import Producer
from centavo.envelopes import FRAME_BYTES, celery_message, inflated, new_stamp, pack
from tests.sdk.support import Broker, envelope_in, event, eventually


def test_an_envelope_leaves_when_it_holds_enough_events(broker: Broker) -> None:
    with Producer(broker.url, envelope_events_max=10, linger_seconds=3600) as producer:
        for number in range(25):
            producer.emit(event(str(number)))
        eventually(lambda: producer.counters.published == 20)

        assert [len(envelope["events"]) for envelope in broker.envelopes()] == [10, 10]
        assert producer.counters.buffered == 5


def test_an_envelope_never_grows_beyond_its_bytes(broker: Broker) -> None:
    events = [event(str(number), reason="ü" * (number % 200 + 1)) for number in range(300)]
    with Producer(broker.url, envelope_bytes_max=2000, linger_seconds=3600) as producer:
        for each in events:
            producer.emit(each)
        assert producer.flush() == 0

    sizes = [len(json.dumps(e, separators=(",", ":"), ensure_ascii=False).encode()) for e in broker.envelopes()]
    assert max(sizes) <= 2000
    assert min(sizes[:-1]) > 2000 - max(len(each.to_wire()) + 1 for each in events)
    assert [each.key for each in events] == broker.keys()


def test_an_event_larger_than_an_envelope_travels_alone(broker: Broker) -> None:
    large = event("large", metadata={"text": "x" * 1000})
    with Producer(broker.url, envelope_bytes_max=500) as producer:
        for each in (event("before"), large, event("after")):
            producer.emit(each)

    assert [[e["key"] for e in env["events"]] for env in broker.envelopes()] == [["before"], ["large"], ["after"]]


def test_a_single_event_leaves_after_lingering(broker: Broker) -> None:
    with Producer(broker.url, linger_seconds=0.3) as producer:
        began = time.monotonic()
        producer.emit(event("alone"))
        eventually(lambda: producer.counters.published == 1)

        assert 0.3 <= time.monotonic() - began < 2
    assert broker.keys() == ["alone"]


def test_flush_does_not_wait_for_the_linger(broker: Broker) -> None:
    with Producer(broker.url, linger_seconds=3600) as producer:
        producer.emit(event("now"))

        assert producer.flush(timeout=10) == 0
        assert broker.keys() == ["now"]


def test_events_go_to_the_queue_that_was_named(broker: Broker) -> None:
    with Producer(broker.url, queue="usage-eu") as producer:
        producer.emit(event("eu"))

    assert (broker.keys(), broker.keys("usage-eu")) == ([], ["eu"])


def test_packing_joins_the_bytes_of_events_untouched() -> None:
    envelope = pack([b'{"a": 1}', b'{"b":"\\u00fc"}'], new_stamp(datetime(2026, 11, 20, 14, 5, 9, 310_999, UTC)))

    assert envelope.json == (
        b'{"v":1,"id":"%s","sent_at":"2026-11-20T14:05:09.310Z","events":[{"a": 1},{"b":"\\u00fc"}]}'
        % envelope.id.encode()
    )
    assert len(envelope.json) == FRAME_BYTES + len(b'{"a": 1},{"b":"\\u00fc"}')


@pytest.mark.parametrize("text", ['"', "\\", "ü", "\u2028", "\x01", "😀", "</script>"])
def test_any_text_survives_the_envelope_and_the_message(text: str) -> None:
    original = event(text, metadata={text: text})

    body = json.loads(celery_message(pack([original.to_wire()])).body)

    assert [json.loads(original.to_wire())] == json.loads(body[0][0])["events"]


def test_every_envelope_has_an_id_of_its_own_which_is_the_task_id(broker: Broker) -> None:
    with Producer(broker.url, envelope_events_max=1) as producer:
        for number in range(5):
            producer.emit(event(str(number)))

    messages = broker.messages()
    ids = [envelope_in(message)["id"] for message in messages]
    assert len(set(ids)) == 5
    assert ids == [message["headers"]["id"] for message in messages]


def test_a_large_envelope_travels_compressed_and_arrives_as_it_was() -> None:
    """The broker holds a fraction of it; a small one stays readable."""
    large = pack([event(f"key-{number}").to_wire() for number in range(500)])

    argument = json.loads(celery_message(large).body)[0][0].encode()

    assert argument.startswith(b"zlib:")
    assert len(argument) < len(large.json) / 5
    assert inflated(argument, len(large.json)) == large.json


@pytest.mark.parametrize("damage", ["zlib:", "zlib:%%%", "zlib:AAAA", "cut", "longer"])
def test_a_compressed_envelope_that_cannot_be_read_says_so(damage: str) -> None:
    """Cut short, no base64, no zlib, or larger than the reader allows: never half an envelope."""
    whole = json.loads(celery_message(pack([event().to_wire()] * 500)).body)[0][0]
    text, bound = {"cut": (whole[:400], 10**9), "longer": (whole, 1000)}.get(damage, (damage, 10**9))

    with pytest.raises(ValueError, match="compressed envelope"):
        inflated(text.encode(), bound)
