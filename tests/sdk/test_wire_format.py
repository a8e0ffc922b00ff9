"""`docs/wire-format.md` is exact: a producer written from it alone puts in the queue what ours does."""

import base64
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from centavo import Item, Producer, UsageEvent
from centavo.envelopes import ENVELOPE_BYTES_MAX, ENVELOPE_EVENTS_MAX, LINGER_SECONDS, QUEUE, TASK
from tests.sdk.support import Broker, envelope_in

DOCUMENT = (Path(__file__).parents[2] / "docs" / "wire-format.md").read_text()


def block(kind: str) -> str:
    """The one code block of this kind in the document."""
    (found,) = re.findall(rf"^```{kind}\n(.*?)^```", DOCUMENT, re.DOTALL | re.MULTILINE)
    assert isinstance(found, str)
    return found


def without_what_differs(message: dict[str, Any]) -> dict[str, Any]:
    """A message with its ids, times and origin, which are new in each, replaced by their types."""
    envelope = envelope_in(message)
    body = json.loads(base64.b64decode(message["body"]))
    varying = {"id": str, "root_id": str, "origin": str, "correlation_id": str, "delivery_tag": str}

    def settled(part: dict[str, Any]) -> dict[str, Any]:
        return {name: varying[name] if name in varying and value else value for name, value in part.items()}

    return {
        **message,
        "body": [[{**settled(envelope), "sent_at": type(envelope["sent_at"])}], *body[1:]],
        "headers": settled(message["headers"]),
        "properties": {**settled(message["properties"]), "reply_to": None},
    }


def test_a_producer_written_from_the_document_sends_what_ours_sends(broker: Broker, tmp_path: Path) -> None:
    example = json.loads(block("json event"))
    program = tmp_path / "producer.py"
    program.write_text(block("python"))
    assert "centavo" not in re.findall(r"^(?:from|import) (\w+)", block("python"), re.MULTILINE)

    subprocess.run(
        [sys.executable, "-W", "error", program, broker.url],
        input=json.dumps([example]),
        text=True,
        check=True,
        timeout=30,
    )
    with Producer(broker.url) as producer:
        producer.emit(UsageEvent.from_wire(example))

    theirs, ours = broker.messages()
    assert without_what_differs(theirs) == without_what_differs(ours)


def test_the_documents_example_is_what_ours_sends(broker: Broker) -> None:
    with Producer(broker.url) as producer:
        producer.emit(UsageEvent.from_wire(json.loads(block("json event"))))

    (ours,) = broker.messages()
    assert without_what_differs(json.loads(block("json redis"))) == without_what_differs(ours)


def test_the_documents_example_body_is_the_one_it_shows_decoded() -> None:
    body = json.loads(block("json redis"))["body"]

    assert base64.b64decode(body).decode() == block("json body").strip()


def test_the_documents_example_event_is_a_usage_event() -> None:
    example = json.loads(block("json event"))

    event = UsageEvent.from_wire(example)

    assert example == json.loads(event.to_wire())


def test_the_document_names_every_field_of_an_event_and_of_an_item() -> None:
    rows = "\n".join(line for line in DOCUMENT.splitlines() if line.startswith("|"))
    missing = [name for name in (*UsageEvent.model_fields, *Item.model_fields) if f"`{name}`" not in rows]

    assert missing == []


def test_the_document_states_the_limits_that_the_code_has() -> None:
    assert (TASK, QUEUE) == ("centavo.record_usage", "usage")
    assert f"`{TASK}`" in DOCUMENT
    assert f"LPUSH {QUEUE} " in DOCUMENT
    stated = f"{ENVELOPE_EVENTS_MAX} events and {ENVELOPE_BYTES_MAX // 1024} KiB or less"
    assert stated in DOCUMENT
    assert f"{LINGER_SECONDS * 1000:g} ms after its first event" in DOCUMENT
