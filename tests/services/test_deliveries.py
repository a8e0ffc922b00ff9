"""Alerts delivered to a real receiver: signed, once each, again after failures, given up for all to see."""

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from billing.errors import DatabaseUnavailable, Rejected, TenantNotFound
from billing.payments import AlertKind
from config.settings import settings
from db.alerts import raise_alert
from db.session import in_transaction
from services.books.tenants import create_tenant
from services.oversight import deliveries
from services.oversight.deliveries import EndpointNotFound
from tests.factories import TENANT
from tests.looking import one, rows
from tests.services.told import Tenant, a_tenants_server

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)
STATES = "SELECT state, tries, last_status FROM alert_deliveries ORDER BY alert_id"


@pytest.fixture(autouse=True)
def _tenant(billing_database: str) -> None:
    create_tenant(TENANT, "Acme", NOW)


@pytest.fixture
def tenant() -> Iterator[Tenant]:
    with a_tenants_server() as server:
        yield server


@pytest.fixture
def secret(tenant: Tenant) -> str:
    made = deliveries.set_endpoint(TENANT, tenant.url, NOW)
    assert made.secret is not None
    return made.secret


def an_alert(subject: str = "q", kind: AlertKind = AlertKind.QUOTA_THRESHOLD, at: datetime = NOW) -> None:
    in_transaction(lambda c: raise_alert(c, TENANT, kind, subject, "80 % of it", at, customer_id="ana"))


def deliver(at: datetime = NOW) -> int:
    """As the tick and its task; how many arrived."""
    number = 0
    for tenant_id in deliveries.claim_due(at):
        while deliveries.deliver_next(tenant_id, at):
            number += 1
        deliveries.release(tenant_id)
    return number


def test_an_alert_arrives_signed_once(tenant: Tenant, secret: str) -> None:
    an_alert()

    sent = deliver(), deliver()

    (told,) = tenant.told
    assert sent == (1, 0)
    assert told.is_signed_with(secret)
    assert told.timestamp == int(NOW.timestamp())
    assert told.json == {
        "type": "alert.quota_threshold",
        "timestamp": "2026-11-20T12:00:00+00:00",
        "data": {
            "alert_id": one("SELECT alert_id FROM alerts")[0],
            "kind": "quota_threshold",
            "subject": "q",
            "customer_id": "ana",
            "detail": "80 % of it",
        },
    }
    assert rows(STATES) == [("delivered", 1, 204)]


def test_what_is_said_again_is_one_message_and_what_is_rolled_back_is_none(tenant: Tenant, secret: str) -> None:
    """Seen by a person and said anew, it is another alert."""
    an_alert()
    an_alert()
    with psycopg.connect(settings().required("database_url")) as connection:
        raise_alert(connection, TENANT, AlertKind.OPEN_TIERS, "ana", "never", NOW)
        connection.rollback()
    one("UPDATE alerts SET seen_at = last_at RETURNING 1")
    an_alert()

    assert deliver() == 2
    assert len({told.message_id for told in tenant.told}) == 2


def test_without_an_endpoint_nothing_waits() -> None:
    an_alert()

    assert rows(STATES) == []
    with pytest.raises(EndpointNotFound):
        deliveries.endpoint_of(TENANT)


def test_what_does_not_arrive_comes_again_ever_less_often_under_the_same_id(tenant: Tenant, secret: str) -> None:
    """The same id and body, a signature of its own time; a redirect is no arrival, and is not followed."""
    an_alert()
    tenant.answers = [500, 302]

    first = deliver(), rows(STATES)
    too_soon = deliver(NOW + 59 * SECOND)
    second = deliver(NOW + 60 * SECOND), rows(STATES)
    resting = deliver(NOW + 361 * SECOND - 2 * SECOND)
    third = deliver(NOW + 361 * SECOND)

    assert first == (0, [("due", 1, 500)])
    assert second == (0, [("due", 2, 302)])
    assert (too_soon, resting, third) == (0, 0, 1)
    assert {(told.message_id, told.body) for told in tenant.told} == {(tenant.told[0].message_id, tenant.told[0].body)}
    assert len({told.signatures[0] for told in tenant.told}) == 3
    assert all(told.is_signed_with(secret) for told in tenant.told)
    assert rows(STATES) == [("delivered", 3, 204)]
    assert deliveries.endpoint_of(TENANT).failures == 0


def test_one_message_that_is_refused_does_not_keep_the_others(tenant: Tenant, secret: str) -> None:
    """The endpoint rests a minute; then what is due by itself comes before what was refused."""
    an_alert("first")
    an_alert("second", at=NOW + SECOND)
    tenant.answers = [400, 400]

    sent = [deliver(NOW + 2 * SECOND), deliver(NOW + 62 * SECOND), deliver(NOW + 200 * SECOND)]

    assert sent == [0, 0, 1]
    assert [told.json["data"]["subject"] for told in tenant.told] == ["first", "first", "second"]


def test_a_server_that_is_away_costs_one_try_each_time(secret: str, tenant: Tenant) -> None:
    """However much waits: it rests a minute, then two, an hour at most. Nothing of its address is kept as the error."""
    deliveries.set_endpoint(TENANT, "http://127.0.0.1:9/hooks?token=hush", NOW)
    for number in range(5):
        an_alert(str(number))

    deliver()
    deliver(NOW + 60 * SECOND)
    deliver(NOW + 119 * SECOND)

    found = deliveries.endpoint_of(TENANT)
    assert (found.failures, found.rests_until) == (2, NOW + 180 * SECOND)
    assert one("SELECT sum(tries), max(last_status), max(last_error) FROM alert_deliveries") == (
        2,
        None,
        "ConnectionError",
    )


def test_what_never_arrives_is_given_up_and_said(tenant: Tenant, secret: str) -> None:
    """After ten tries; the alert about it is not sent. It can be tried once more, by hand."""
    an_alert()
    tenant.answers = [503] * 10
    at = NOW
    for _ in range(10):
        deliver(at)
        at = max(filter(None, one("SELECT d.due_at, e.rests_until FROM alert_deliveries d, webhook_endpoints e")))

    given_up = rows(STATES)
    said = rows("SELECT kind, customer_id FROM alerts WHERE kind <> 'quota_threshold'")
    again = deliveries.deliver_again(TENANT, at)

    assert given_up == [("given_up", 10, 503)]
    assert said == [("webhook_given_up", None)]
    assert (again, deliver(at)) == (1, 1)
    assert rows(STATES) == [("delivered", 1, 204)]
    assert [row.state for row in deliveries.deliveries_of(TENANT)] == ["delivered"]


def test_what_is_four_days_old_is_given_up_with_the_next_failure(tenant: Tenant, secret: str) -> None:
    """Also what was never tried: others stood before it."""
    an_alert("first")
    an_alert("second")
    tenant.answers = [500]

    deliver(NOW + timedelta(days=4))

    assert rows(STATES) == [("given_up", 1, 500), ("given_up", 0, None)]
    assert "2 messages" in one("SELECT detail FROM alerts WHERE kind = 'webhook_given_up'")[0]


def test_an_address_that_is_gone_is_told_nothing_more(tenant: Tenant, secret: str) -> None:
    """Until it is set again: then what came before it was turned off goes there, too."""
    an_alert("first")
    an_alert("second", at=NOW + SECOND)
    tenant.answers = [410]
    deliver(NOW + SECOND)
    an_alert("while it is off", at=NOW + 2 * SECOND)
    off = deliveries.endpoint_of(TENANT).disabled_reason, deliver(NOW + timedelta(hours=2))

    made = deliveries.set_endpoint(TENANT, tenant.url, NOW + timedelta(hours=3))
    deliver(NOW + timedelta(hours=3))

    assert off == ("the endpoint answered 410 Gone", 0)
    assert made.secret is None
    assert [told.json["data"]["subject"] for told in tenant.told] == ["first", "second"]


def test_a_new_secret_signs_at_once_and_the_old_one_for_a_day(tenant: Tenant, secret: str) -> None:
    new = deliveries.set_endpoint(TENANT, tenant.url, NOW, new_secret=True).secret
    assert new is not None
    an_alert("within the day")
    deliver()
    an_alert("after it", at=NOW + timedelta(days=1))
    deliver(NOW + timedelta(days=1))

    assert [[told.is_signed_with(one) for one in (secret, new)] for told in tenant.told] == [
        [True, True],
        [False, True],
    ]


def _end_all_connections() -> None:
    rows(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )


def test_who_dies_while_sending_leaves_it_due(tenant: Tenant, secret: str) -> None:
    """Claimed and not worked, or sent and not written down: after a minute another sends it, under the same id."""
    an_alert()
    (claimed,) = deliveries.claim_due(NOW)
    beside = deliveries.claim_due(NOW + 59 * SECOND)
    tenant.before_answer = _end_all_connections
    with pytest.raises(DatabaseUnavailable):
        deliveries.deliver_next(claimed, NOW)
    tenant.before_answer = lambda: None

    assert beside == []
    assert deliver(NOW + 60 * SECOND) == 1
    assert len({told.message_id for told in tenant.told}) == 1
    assert len(tenant.told) == 2


def test_no_secret_is_logged_or_shown(
    tenant: Tenant, secret: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    new = deliveries.set_endpoint(TENANT, tenant.url, NOW, new_secret=True).secret
    an_alert()
    tenant.answers = [500]
    deliver()

    printed = capsys.readouterr()
    shown = (
        f"{deliveries.endpoint_of(TENANT)} {deliveries.deliveries_of(TENANT)} {caplog.text}{printed.out}{printed.err}"
    )
    assert "alert not delivered" in shown
    assert [one for one in (secret, new) if one is None or one in shown] == []


def test_what_can_not_be_is_refused() -> None:
    with pytest.raises(TenantNotFound):
        deliveries.set_endpoint("nobody", "https://example.com/", NOW)
    with pytest.raises(Rejected, match="https addresses only"):
        deliveries.set_endpoint(TENANT, "http://example.com/", NOW)
    with pytest.raises(EndpointNotFound):
        deliveries.disable_endpoint(TENANT, "by hand", NOW)
    with pytest.raises(Rejected):
        deliveries.deliveries_of(TENANT, limit=0)
