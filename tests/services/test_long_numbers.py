"""Numbers that take little on the wire and much when they are written out: refused, and no harm where they are kept."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import psycopg
import pytest
from pydantic import ValidationError

from config.settings import settings
from services.desk.explain import explain_event
from services.desk.prices import load_prices
from services.metering import inbox, pending
from services.metering.parked import Replayed, replay_all, show
from services.metering.recording import record_one
from services.metering.usage import Outcome, record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one, rows, wallet
from tests.services.test_parked import a_price

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
LONG = ["1e5000", "1e131071", "1e400000", "1e-131071"]


@pytest.fixture(autouse=True)
def _ana(billing_database: str) -> None:
    assert billing_database
    catalogues(NOW - timedelta(days=1))
    a_customer("ana", credit="10", now=NOW - timedelta(days=1))


def parked() -> list[tuple[Any, ...]]:
    return rows("SELECT reason, detail, key FROM parked_inputs")


def keep(metadata: str) -> None:
    """Metadata as rows may have it from before there was a bound."""
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute("UPDATE usage_events SET metadata = %s::jsonb", (metadata,))


@pytest.fixture(params=['{"a": 1e5000}', '{"a": [1e131071, 1e-16000, {"b": 1.5}]}'])
def kept(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.mark.parametrize("number", LONG)
def test_an_event_with_a_long_number_is_parked_and_the_others_are_charged(number: str) -> None:
    plain = an_event("ana", key="bad", occurred_at=NOW, metadata={"a": 7}).to_wire()
    bad = plain.replace(b'"a":7', f'"a":{number}'.encode())

    outcome = record_usage(an_envelope(bad, an_event("ana", occurred_at=NOW)), NOW)

    assert outcome == Outcome(received=2, charged=1, parked=1)
    ((reason, detail, key),) = parked()
    assert (reason, key) == ("event_malformed", "bad")
    assert "metadata holds a number that has more than 40 digits when it is written out" in detail


def test_usage_by_sql_with_a_long_number_is_parked() -> None:
    one("SELECT record_token_consumption('ana', 1000, metadata => '{\"a\": 1e50}', key => 'bad')")

    assert inbox.drain(NOW) == 1

    assert [(reason, key) for reason, _, key in parked()] == [("event_malformed", "bad")]
    assert rows("SELECT * FROM usage_inbox") == []


def test_no_event_with_a_long_number_can_be_made() -> None:
    """Neither for `emit` nor for a caller who waits."""
    with pytest.raises(ValidationError, match="more than 40 digits"):
        record_one(an_event("ana", metadata={"a": Decimal("1E+140000")}), NOW)

    assert rows("SELECT * FROM usage_events") == []


def test_what_is_kept_with_a_long_number_can_be_settled(kept: str) -> None:
    record_one(an_event("ana", key="k", occurred_at=NOW), NOW, is_deferred=True)
    keep(kept)

    assert pending.settle(TENANT, "k", NOW).status == "charged"

    assert wallet("ana") == Decimal("9.97")
    assert one("SELECT metadata = %s::jsonb FROM usage_events", kept) == (True,)


def test_what_is_kept_with_a_long_number_can_be_replayed_and_shown(kept: str) -> None:
    record_usage(an_envelope(an_event("ana", [tokens(100, model="gpt-99")], key="k", occurred_at=NOW)), NOW)
    keep(kept)
    load_prices([a_price()], NOW)

    shown = show(f"event:{TENANT}/k")
    replayed = replay_all(NOW + timedelta(minutes=1))

    assert shown["metadata"].keys() == {"a"}
    assert replayed == Replayed(tried=1, charged=1)
    assert one("SELECT metadata = %s::jsonb FROM usage_events", kept) == (True,)


def test_what_is_kept_with_a_long_number_can_be_explained(kept: str) -> None:
    record_usage(an_envelope(an_event("ana", key="k", occurred_at=NOW)), NOW)
    keep(kept)

    explained = explain_event(TENANT, "k")["event"]

    assert explained["cost"] == Decimal("0.03")
    assert explained["metadata"]["a"] in (Decimal("1E+5000"), [Decimal("1E+131071"), 0.0, {"b": 1.5}])
