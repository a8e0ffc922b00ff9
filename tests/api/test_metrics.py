"""`/metrics`: what an operator would be woken by, for whoever may ask, at a bounded cost."""

import json
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
import redis
from fastapi import Request
from prometheus_client.parser import text_string_to_metric_families

from api import metrics
from billing.errors import Forbidden
from billing.payments import FINAL, AlertKind, PaymentState
from config import clock
from config.settings import settings
from db import figures as rows
from db.alerts import raise_alert
from db.schema.base import one_of
from db.session import Connection, in_transaction
from sandbox.processes import await_condition
from services.metering.usage import record_usage
from services.oversight.deliveries import set_endpoint
from services.oversight.health import note_tick
from tests.api.asking import ADMIN, VIEW, Asker, as_, new_key
from tests.api.serving import served_api
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one
from tests.services.told import a_tenants_server

TOKEN = "a-token-of-the-monitor"
A_MINUTE = 60

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
"""by name and labels"""


def scraped(url: str, bearer: str | None = None) -> Samples:
    """What Prometheus would read."""
    answered = Asker(url, bearer).get("/metrics")
    assert answered.status == 200
    assert answered.headers["Content-Type"].startswith("text/plain; version=")
    families = text_string_to_metric_families(answered.body.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def by(found: Samples, name: str) -> dict[Any, float]:
    """The samples of a metric by the values of their labels."""
    picked = {tuple(value for _, value in labels): value for (one, labels), value in found.items() if one == name}
    return {key[0] if len(key) == 1 else key: value for key, value in picked.items()}


@pytest.fixture
def much(api: str) -> str:
    """The API, over some of everything that a monitor asks for."""
    catalogues()
    a_customer("ana", credit="10")
    root = as_(api, ADMIN)
    record_usage(
        an_envelope(an_event(), an_event(), an_event(items=[tokens(1, model="unknown")]), b'{"no":"event"}'),
        clock.now(),
    )
    top_up = {"currency": "USD", "credit_amount": "1", "amount_minor": 100, "payment_currency": "BRL"}
    root.post("/v1/customers/ana/top-ups", top_up, new_key())
    one("SELECT set_config('centavo.tenant_id', %s, false), record_token_consumption('ana', 1)", TENANT)
    with a_tenants_server() as tenant:
        set_endpoint(TENANT, tenant.url, clock.now())
        in_transaction(
            lambda connection: raise_alert(connection, TENANT, AlertKind.QUOTA_THRESHOLD, "q", "80 %", clock.now())
        )
    note_tick(clock.now())
    return api


def test_what_is_charged_parked_due_and_late_is_told(much: str) -> None:
    found = scraped(much)

    assert by(found, "centavo_look_ok") == {"database": 1, "broker": 1}
    assert by(found, "centavo_usage_events_charged") == {(): 2}
    assert by(found, "centavo_parked") == {("event", "unpriced"): 1, ("input", "event_malformed"): 1}
    due = by(found, "centavo_due")
    assert {kind for kind, number in due.items() if number} == {"usage_inbox", "payments", "alert_deliveries"}
    assert due["payments"] == due["usage_inbox"] == due["alert_deliveries"] == 1
    oldest = by(found, "centavo_due_oldest_seconds")
    assert oldest.keys() == due.keys()
    assert all(0 <= oldest[kind] < A_MINUTE for kind in oldest)
    assert by(found, "centavo_payments_open") == {"due": 1}
    assert by(found, "centavo_alerts_unseen") == {"quota_threshold": 1, "unpriced": 1}
    assert by(found, "centavo_queue_messages") == {"usage": 0, "payments": 0, "ticks": 0}
    assert by(found, "centavo_usage_oldest_seconds") == {(): 0}
    ticked_at = by(found, "centavo_beat_ticked_timestamp_seconds")[()]
    assert 0 <= clock.now().timestamp() - ticked_at < A_MINUTE
    assert by(found, "centavo_stripe_reached_timestamp_seconds") == {}
    assert by(found, "centavo_audit_differences") == {(): 0}
    assert by(found, "centavo_audit_finished_timestamp_seconds") == {}
    assert by(found, "centavo_collecting_paused") == {(): 0}
    connections = by(found, "centavo_database_connections")
    assert 0 < sum(connections.values()) <= by(found, "centavo_database_connections_max")[()]
    assert by(found, "process_resident_memory_bytes")[()] > 0


def test_requests_are_counted_by_route_and_status_and_by_nothing_that_callers_choose(much: str) -> None:
    root = as_(much, ADMIN)
    for customer in ("ana", "ana", "nobody"):
        root.get(f"/v1/customers/{customer}/wallet")
    root.ask("POST", "/v1/usage", data=b"{" * 1_000_000)
    for number, method in enumerate(("PROPFIND", "REPORT", "MKCOL")):
        root.get(f"/nowhere/{number}")
        root.ask(method, "/v1/info")
    Asker(much, None).get("/v1/customers/ana/wallet")

    found = scraped(much)

    answered = by(found, "centavo_api_requests_total")
    wallet = "/v1/customers/{customer_id:path}/wallet"
    assert {status: number for (method, route, status), number in answered.items() if route == wallet} == {
        "200": 2,
        "404": 1,
        "401": 1,
    }
    assert answered["GET", "none", "404"] == 3
    assert answered["POST", "none", "413"] == 1
    assert answered["other", "/v1/info", "405"] == 3
    assert {method for method, _, _ in answered} <= {"GET", "POST", "other"}
    assert by(found, "centavo_api_request_seconds_count")["GET", wallet] == 4
    assert by(found, "centavo_api_requests_under_way") == {(): 1}


def test_the_oldest_envelope_says_how_late_usage_is(much: str, broker: str) -> None:
    """By the time in its id; what is no envelope says nothing."""
    sent = int((datetime.now(UTC) - timedelta(minutes=5)).timestamp() * 1000)
    envelope = uuid.UUID(int=(sent << 80) | (7 << 76) | (0b10 << 62))
    with redis.Redis.from_url(broker) as client:
        for name in (str(envelope), str(uuid.uuid4()), "no id"):
            client.lpush("usage", json.dumps({"headers": {"id": name}}))

        found = scraped(much)
        client.delete("usage")

    assert 300 <= by(found, "centavo_usage_oldest_seconds")[()] < 330
    assert by(found, "centavo_queue_messages")["usage"] == 3


def test_figures_are_looked_for_once_in_ten_seconds(much: str) -> None:
    """However often somebody asks."""
    before = scraped(much)
    record_usage(an_envelope(an_event()), clock.now())

    after = scraped(much)

    assert metrics.KEPT_SECONDS == 10
    assert by(after, "centavo_usage_events_charged") == by(before, "centavo_usage_events_charged") == {(): 2}


def test_nothing_is_counted_beyond_the_bound(much: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "COUNTED_MAX", 2)
    events = [an_event(items=[tokens(1, model="unknown")]) for _ in range(5)]
    record_usage(an_envelope(*events, *(b'{"no":%d}' % number for number in range(5))), clock.now())

    found = scraped(much)

    assert by(found, "centavo_parked") == {("event", "unpriced"): 2, ("input", "event_malformed"): 2}


#: Which index must be enough for each figure.
INDEXES = {
    "_DUE_OF_ALL": {
        "usage_inbox_in_order",
        "payments_due",
        "refunds_due",
        "webhook_events_due",
        "alert_deliveries_due",
        "credit_holds_due",
        "month_turns_due",
    },
    "_PARKED": {"usage_events_waiting", "parked_inputs_waiting"},
    "_PAYMENTS": {"payments_open"},
    "_ALERTS": {"alerts_unseen"},
    "_WATCHED": {"audit_differences_standing"},
}


@pytest.mark.parametrize("statement", INDEXES)
def test_each_count_is_of_an_index_of_what_is_not_done(database: str, statement: str) -> None:
    """Of what is done there is ever more: no figure may go through it."""
    with psycopg.connect(database) as connection:
        # Tables are empty here, and would be read whole.
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET enable_bitmapscan = off")
        said = {"now": clock.now(), "most": 10}
        plan = connection.execute(f"EXPLAIN {getattr(rows, statement)}".encode(), said).fetchall()

    text = "\n".join(line for (line,) in plan)
    assert {name for name in INDEXES[statement] if name not in text} == set(), text


def test_open_payments_are_all_that_are_not_over() -> None:
    """The index, and the statement that must say its condition word by word."""
    assert f"NOT ({one_of('state', FINAL)})" in rows._PAYMENTS
    assert frozenset(PaymentState) - FINAL >= {PaymentState.DISPUTED, PaymentState.UNCOLLECTIBLE}


def test_what_takes_too_long_to_count_is_left_out(much: str) -> None:
    with psycopg.connect(settings().required("database_url")) as holding:
        holding.execute("LOCK TABLE periods")

        def work(connection: Connection) -> tuple[int | None, list[rows.Counted]]:
            return rows.events_charged(connection), rows.payments(connection)

        counted = in_transaction(work)
        holding.rollback()

    assert counted == (None, [("due", 1)])


def test_what_is_away_is_left_out_and_said(much: str, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = "127.0.0.1:1"
    with monkeypatch.context() as away:
        away.setenv("CENTAVO_BROKER_URL", f"redis://{nowhere}/0")
        settings.cache_clear()
        without_broker = scraped(much)
        away.setenv("CENTAVO_DATABASE_URL", f"postgresql://centavo@{nowhere}/centavo")
        settings.cache_clear()
        with served_api() as url:
            without_both = scraped(url)
    settings.cache_clear()

    assert by(without_broker, "centavo_look_ok") == {"database": 1, "broker": 0}
    assert by(without_broker, "centavo_queue_messages") == {}
    assert by(without_broker, "centavo_usage_events_charged") == {(): 2}
    assert by(without_both, "centavo_look_ok") == {"database": 0, "broker": 0}
    assert by(without_both, "centavo_due") == {}
    assert by(without_both, "centavo_api_requests_under_way") == {(): 1}


def test_with_a_token_only_whoever_has_it_may_ask(api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on this machine; and no token of the issuer's will do."""
    monkeypatch.setenv("CENTAVO_METRICS_TOKEN", TOKEN)
    settings.cache_clear()
    wrong = (None, "", TOKEN[:-1], TOKEN + "x", "é")

    refused = [Asker(api, bearer and bearer.encode().decode("latin-1")).get("/metrics").status for bearer in wrong]

    assert refused == [401] * len(wrong)
    assert as_(api, ADMIN, VIEW).get("/metrics").status == 401
    assert by(scraped(api, TOKEN), "centavo_look_ok") == {"database": 1, "broker": 1}


@pytest.mark.parametrize("header", ["X-Forwarded-For", "Forwarded", "X-Real-IP", "Via"])
def test_without_a_token_what_a_proxy_brings_is_refused(api: str, header: str) -> None:
    """A proxy on this machine brings the world."""
    answered = Asker(api, None).ask("GET", "/metrics", headers={header: "127.0.0.1"})

    assert (answered.status, answered.body["code"]) == (403, "forbidden")


@pytest.mark.parametrize(("host", "may"), [("127.0.0.1", True), ("::1", True), ("10.0.0.5", False), ("x", False)])
def test_without_a_token_only_this_machine_may_ask(host: str, *, may: bool) -> None:
    settings.cache_clear()
    request = Request({"type": "http", "client": (host, 1), "headers": []})

    try:
        metrics._require_leave(request)
    except Forbidden:
        assert not may
    else:
        assert may


def test_a_token_that_could_be_guessed_is_no_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTAVO_METRICS_TOKEN", "short")
    settings.cache_clear()

    with pytest.raises(ValueError, match="metrics_token"):
        settings()
    settings.cache_clear()


def test_a_monitor_is_answered_while_all_threads_are_busy(much: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CENTAVO_API_CONNECTIONS", "1")
    settings.cache_clear()
    with served_api() as url, psycopg.connect(settings().required("database_url")) as holding:
        holding.execute("LOCK TABLE wallets")
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(as_(url, VIEW).get, "/v1/customers/ana/wallet")
            await_condition(lambda: by(scraped(url), "centavo_api_requests_under_way")[()] == 2, 30, "it to wait")
            found = scraped(url)
            is_waiting = not waiting.done()
            holding.rollback()

            assert (is_waiting, waiting.result().status) == (True, 200)
    assert by(found, "centavo_look_ok") == {"database": 1, "broker": 1}


def test_a_look_that_hangs_keeps_no_request_for_long(much: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database answers, but what is asked of it waits for a lock."""
    monkeypatch.setattr(metrics, "WAITED_SECONDS", 1.5)
    with psycopg.connect(settings().required("database_url")) as holding, served_api() as url:
        holding.execute("LOCK TABLE last_seen")
        found = scraped(url)
        holding.rollback()

        assert by(found, "centavo_look_ok") == {"database": 0, "broker": 1}
        await_condition(lambda: by(scraped(url), "centavo_look_ok")["database"] == 1, 30, "the look to come through")
