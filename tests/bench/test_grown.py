"""Tables that Postgres fills itself are what usage would have made of them."""

from collections.abc import Iterator
from uuid import uuid4

import pytest

from bench import drain, grown, workload
from sandbox.postgres import PostgresServer
from services.metering.usage import record_usage
from services.oversight.audit import audit
from tests.conftest import forget
from tests.factories import an_envelope
from tests.looking import one


@pytest.fixture
def target(postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[drain.Target]:
    """A database of the test's own."""
    name = f"grown_{uuid4().hex}"
    postgres.create_database(name)
    monkeypatch.setenv("CENTAVO_DATABASE_URL", postgres.uri(name))
    monkeypatch.setenv("CENTAVO_ENVIRONMENT", "sandbox")
    forget()
    yield drain.Target(postgres.uri(name), "redis://127.0.0.1:1/0", 7)
    forget()
    postgres.drop_database(name)


def test_a_year_that_was_filled_in_agrees_with_itself_and_goes_on(
    target: drain.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In several statements, with customers who have one event more than others; usage comes after it."""
    monkeypatch.setattr(grown, "CHUNK", 300)
    drain.create(target)

    filled = grown.grow(target, 1000)

    assert audit().shown == []
    assert filled.events == 1000
    assert one("SELECT count(*), count(DISTINCT period_start), sum(cost) FROM usage_events") == (
        1000,
        grown.MONTHS,
        1000 * grown.COST_OF_ONE,
    )
    (now, latest) = one("SELECT now(), max(key) FROM usage_events")
    event = drain.event_of(workload.usage(0, target.customers), now)
    assert latest < event.key
    assert record_usage(an_envelope(event), now).charged == 1
    assert audit().shown == []
    indexes = "SELECT array_agg(indexname::text ORDER BY indexname) FROM pg_indexes WHERE tablename = 'usage_events'"
    assert one(indexes)[0] == ["usage_events_of_period", "usage_events_pkey", "usage_events_waiting"]
