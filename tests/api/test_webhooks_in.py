"""What the endpoint takes in, what it refuses, and what it does while something is away."""

import http.client
import json
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import psycopg
import pytest
import requests

from config.settings import settings
from db import session
from sandbox.processes import await_condition
from sandbox.stripe_double.server import bind
from services.collecting import webhooks
from tasks.queues import depths
from tests.api.serving import served_api
from tests.api.signed import PATH, SECRET, an_event, id_of, post, signature
from tests.looking import one, rows

MEGABYTE = 1_048_576


def kept() -> list[tuple[object, ...]]:
    return rows("SELECT event_id, type, source, tries, due_at > received_at, worked_at FROM webhook_events")


def refusal(url: str, body: bytes, header: str | None) -> tuple[int, str]:
    """Status and code of an answer that is an error, in the one shape that errors have."""
    answer = post(url, body, header)
    problem = answer.json()
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "code"} <= set(problem)
    assert problem["detail"]
    return answer.status_code, problem["code"]


def test_an_event_is_kept_as_it_came_and_handed_to_a_worker(api: str) -> None:
    body = an_event()

    answer = post(api, body, signature(body))

    assert (answer.status_code, answer.json()) == (200, {"received": True})
    assert kept() == [(id_of(body), "payment_intent.succeeded", "delivered", 0, True, None)]
    assert one("SELECT payload FROM webhook_events") == (json.loads(body),)
    await_condition(lambda: depths()["payments"] == 1, 30, "one message")


def test_an_event_that_comes_twice_is_kept_and_handed_over_once(api: str) -> None:
    body, other = an_event(), an_event()

    answers = [post(api, one_, signature(one_)).status_code for one_ in (body, body, other)]

    assert answers == [200, 200, 200]
    assert {event_id for event_id, *_ in kept()} == {id_of(body), id_of(other)}
    await_condition(lambda: depths()["payments"] == 2, 30, "two messages")


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "signature_missing"),
        ("", "signature_missing"),
        ("nonsense", "signature_wrong"),
        ("t=1,v1=é", "signature_wrong"),
        ("t=soon,v1=ab", "signature_wrong"),
    ],
)
def test_what_is_not_signed_is_refused(api: str, header: str | None, code: str) -> None:
    assert refusal(api, an_event(), header and header.encode()) == (400, code)  # type: ignore[arg-type] # as on the wire
    assert kept() == []


@pytest.mark.parametrize(
    ("secret", "ago", "code"),
    [(SECRET, 310, "stale"), (SECRET, -310, "future"), ("whsec_other", 0, "signature_wrong")],
)
def test_what_is_signed_by_another_or_not_now_is_refused(api: str, secret: str, ago: int, code: str) -> None:
    body = an_event()

    assert refusal(api, body, signature(body, secret, ago=ago)) == (400, code)
    assert kept() == []


@pytest.mark.parametrize("ago", [290, -290])
def test_a_clock_may_be_off_by_minutes(api: str, ago: int) -> None:
    body = an_event()

    assert post(api, body, signature(body, ago=ago)).status_code == 200


def test_a_body_that_was_changed_on_its_way_is_refused(api: str) -> None:
    body = an_event()

    assert refusal(api, body + b" ", signature(body)) == (400, "signature_wrong")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "not_json"),
        (b"{", "not_json"),
        (b"[" * 100_000, "not_json"),
        (b'{"a": NaN}', "not_json"),
        (b"[]", "not_an_event"),
        (b'{"object": "event"}', "not_an_event"),
        (b'{"object": "payment_intent", "id": "pi_1"}', "not_an_event"),
    ],
    ids=["empty", "cut", "deep", "nan", "list", "bare", "intent"],
)
def test_what_is_no_event_is_refused_even_if_it_is_signed(api: str, body: bytes, code: str) -> None:
    assert refusal(api, body, signature(body)) == (400, code)
    assert kept() == []


def test_bytes_that_are_no_text_are_refused(api: str) -> None:
    assert refusal(api, b"\xff\xfe", signature(b"{}")) == (400, "not_json")


def test_what_postgres_cannot_keep_does_not_stop_an_event(api: str) -> None:
    """JSON may hold NUL and halves of characters; Stripe passes on what merchants typed."""
    body = an_event(note="a\0b\ud83d")

    assert post(api, body, signature(body)).status_code == 200
    assert one("SELECT payload->>'note' FROM webhook_events") == ("a\ufffdb?",)


def test_a_secret_can_be_replaced_while_both_sign(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body, old, new = an_event(), "whsec_old", "whsec_new"
    monkeypatch.setenv("CENTAVO_STRIPE_WEBHOOK_SECRETS", f"{new}, {old}")
    settings.cache_clear()

    both = f"{signature(body, 'whsec_third')},{signature(body, old).partition(',')[2]}"
    statuses = [post(api, body, header).status_code for header in (signature(body, old), signature(body, new), both)]

    assert statuses == [200, 200, 200]
    assert refusal(api, body, signature(body)) == (400, "signature_wrong")


def test_without_a_secret_stripe_is_told_to_come_again(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTAVO_STRIPE_WEBHOOK_SECRETS", "")
    settings.cache_clear()

    assert refusal(api, an_event(), "t=1,v1=ab") == (503, "not_configured")


def test_a_body_of_a_megabyte_is_taken_and_a_larger_one_is_not(api: str) -> None:
    empty = an_event(padding="")
    body = empty.replace(b'"padding": ""', b'"padding": "' + b"x" * (MEGABYTE - len(empty)) + b'"')
    larger = body + b"\n"

    assert len(body) == MEGABYTE
    assert post(api, body, signature(body)).status_code == 200
    assert refusal(api, larger, signature(larger)) == (413, "body_too_large")
    assert len(kept()) == 1


def test_a_body_is_not_read_when_it_says_that_it_is_too_large(api: str) -> None:
    connection = http.client.HTTPConnection(urlsplit(api).netloc, timeout=10)
    connection.putrequest("POST", PATH)
    connection.putheader("Content-Length", str(50 * MEGABYTE))
    connection.endheaders(b"{")

    answer = connection.getresponse()

    assert (answer.status, answer.headers["Connection"]) == (413, "close")
    connection.close()


def test_a_body_without_a_length_is_read_no_further_than_allowed(api: str) -> None:
    host, port = urlsplit(api).netloc.split(":")
    chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with socket.create_connection((host, int(port)), timeout=10) as sending:
        sending.sendall(f"POST {PATH} HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for _ in range(17):
            sending.sendall(chunk)

        assert sending.recv(64).startswith(b"HTTP/1.1 413 ")


def test_while_the_database_is_away_stripe_is_told_to_come_again(
    monkeypatch: pytest.MonkeyPatch, webhook_secrets: None, broker: str
) -> None:
    with bind() as taken:
        nobody = f"postgresql://nobody@127.0.0.1:{taken.getsockname()[1]}/none"
    monkeypatch.setenv("CENTAVO_DATABASE_URL", nobody)
    monkeypatch.setenv("CENTAVO_BROKER_URL", broker)
    session.close()
    settings.cache_clear()
    body = an_event()

    with served_api() as url:
        assert refusal(url, body, signature(body)) == (503, "unavailable")
        # What is wrong with the message itself is said all the same.
        assert refusal(url, body, "t=1,v1=ab") == (400, "signature_wrong")
    settings.cache_clear()


def test_while_the_database_is_slow_others_are_answered_at_once(api: str) -> None:
    body = an_event()
    with psycopg.connect(settings().required("database_url")) as holding, ThreadPoolExecutor(1) as stripe:
        holding.execute("LOCK TABLE webhook_events")
        waiting = stripe.submit(post, api, body, signature(body))
        await_condition(lambda: bool(rows(_WAITS_FOR_A_LOCK)), 30, "the insert to wait")

        began = time.monotonic()
        with requests.Session() as session:
            session.trust_env = False
            healthy = session.get(f"{api}/health", timeout=10).status_code
        took = time.monotonic() - began
        is_waiting = not waiting.done()
        holding.rollback()

        assert (healthy, is_waiting) == (200, True)
        assert took < 1
        assert waiting.result().status_code == 200
    assert len(kept()) == 1


_WAITS_FOR_A_LOCK = """
SELECT FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '%%INSERT INTO webhook_events%%'
"""


def test_while_the_broker_is_away_events_are_kept_and_found_by_a_sweep(
    billing_database: str, webhook_secrets: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with bind() as taken:
        monkeypatch.setenv("CENTAVO_BROKER_URL", f"redis://127.0.0.1:{taken.getsockname()[1]}/0")
    settings.cache_clear()
    bodies = [an_event() for _ in range(5)]

    with served_api() as url:
        began = time.monotonic()
        answers = [post(url, body, signature(body)).status_code for body in bodies]
        took = time.monotonic() - began

    now = datetime.now(UTC)
    assert answers == [200] * 5
    assert took < 2
    assert webhooks.sweep(now) == []
    assert sorted(webhooks.sweep(now + webhooks.HANDED_OVER_WITHIN)) == sorted(id_of(body) for body in bodies)
    assert webhooks.sweep(now + webhooks.HANDED_OVER_WITHIN + timedelta(seconds=1)) == []
