"""Alerts out, on a real worker and a real broker: each arrives once, however often the tick is said."""

from datetime import UTC, datetime
from functools import partial

from celery import Celery

from billing.payments import AlertKind
from db.alerts import raise_alert
from db.session import Connection, in_transaction
from sandbox.processes import await_condition
from services.oversight.deliveries import set_endpoint
from tasks import names
from tests.conftest import WorkerStarter
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import rows
from tests.services.told import a_tenants_server

KIND = AlertKind.QUOTA_THRESHOLD


def _alerts(now: datetime, connection: Connection) -> None:
    for number in range(3):
        raise_alert(connection, TENANT, KIND, str(number), "80 %", now)


def test_alerts_are_delivered_by_a_worker(billing_database: str, broker: str, start_a_worker: WorkerStarter) -> None:
    assert billing_database
    now = datetime.now(UTC)
    catalogues(now)
    with a_tenants_server() as tenant, Celery(broker=broker, set_as_current=False) as app:
        secret = set_endpoint(TENANT, tenant.url, now).secret or ""
        in_transaction(partial(_alerts, now))
        start_a_worker(queues="ticks,payments", children=2)
        for _ in range(3):
            app.send_task(names.SWEEP_ALERTS, queue="ticks")
            app.send_task(names.LOOK_AT_QUOTAS, queue="ticks")
        states = "SELECT state, tries FROM alert_deliveries"
        await_condition(lambda: rows(states) == [("delivered", 1)] * 3, 30, "all are delivered")
        released = "SELECT leased_until FROM webhook_endpoints"
        await_condition(lambda: rows(released) == [(None,)], 30, "the endpoint is released")

        assert [told.json["data"]["subject"] for told in tenant.told] == ["0", "1", "2"]
        assert all(told.is_signed_with(secret) for told in tenant.told)


def test_a_low_wallet_is_found_and_told_by_a_worker(
    billing_database: str, broker: str, start_a_worker: WorkerStarter
) -> None:
    assert billing_database
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("ana", credit="0.5")
    with a_tenants_server() as tenant, Celery(broker=broker, set_as_current=False) as app:
        set_endpoint(TENANT, tenant.url, now)
        start_a_worker(queues="ticks,payments", children=2)
        for _ in range(3):
            app.send_task(names.LOOK_FOR_ALERTS, queue="ticks")
        await_condition(lambda: bool(rows("SELECT 1 FROM alert_deliveries")), 30, "it is said")
        app.send_task(names.SWEEP_ALERTS, queue="ticks")
        await_condition(lambda: bool(tenant.told), 30, "it is told")
        released = "SELECT leased_until FROM webhook_endpoints"
        await_condition(lambda: rows(released) == [(None,)], 30, "the endpoint is released")

        assert [told.json["type"] for told in tenant.told] == ["alert.low_balance"]
