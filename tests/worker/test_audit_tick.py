"""The audit's tick on a real worker and a real broker: said twice, it runs once."""

from datetime import UTC, datetime

from celery import Celery

from sandbox.processes import await_condition
from tasks import names
from tasks.queues import depths
from tests.conftest import WorkerStarter
from tests.factories import a_customer, catalogues
from tests.looking import one, rows

STARTED, FINISHED = "SELECT started_at FROM audit_turn", "SELECT finished_at FROM audit_turn"


def test_an_audit_that_is_due_runs_once_however_often_it_is_said(
    billing_database: str, broker: str, start_a_worker: WorkerStarter
) -> None:
    assert billing_database
    catalogues(datetime.now(UTC))
    a_customer("ana", credit="10")
    start_a_worker(queues="ticks", children=2)
    with Celery(broker=broker, set_as_current=False) as app:
        app.send_task(names.AUDIT_WHEN_DUE, queue="ticks")
        await_condition(lambda: one(FINISHED)[0] is not None, 30, "the audit has run")
        first = one(STARTED)

        app.send_task(names.AUDIT_WHEN_DUE, queue="ticks")
        await_condition(lambda: depths()["ticks"] == 0, 30, "the second was taken")

    assert one(STARTED) == first
    assert rows("SELECT * FROM audit_differences") == []
