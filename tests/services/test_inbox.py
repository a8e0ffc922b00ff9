"""Usage written by SQL is recorded once, whoever dies on the way, and whoever else is at it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import psycopg
import pytest

from centavo.envelopes import ENVELOPE_BYTES_MAX, ENVELOPE_EVENTS_MAX
from config.settings import settings
from db import inbox as inbox_rows
from db.session import in_transaction
from services.metering import inbox
from services.metering.redelivery import HALVED_AT
from tests.factories import a_customer, catalogues
from tests.looking import one, parked_reasons, rows, wallet

pytestmark = pytest.mark.usefixtures("billing_database")

WRITE = "SELECT record_token_consumption('ana', 1000, provider => 'openai', model => 'gpt-4', category => 'llm_prompt')"


def now() -> datetime:
    return datetime.now(UTC)


@pytest.fixture
def ana(billing_database: str) -> None:
    assert billing_database
    catalogues()
    a_customer("ana", credit="10")


def written(times: int, more: str = "") -> None:
    one(f"SELECT count({WRITE[7:-1]}{more})) FROM generate_series(1, {times})")


def waiting() -> int:
    return int(one("SELECT count(*) FROM usage_inbox")[0])


@pytest.mark.usefixtures("ana")
def test_what_was_recorded_and_not_yet_removed_is_recorded_once() -> None:
    """As when the process dies between the two: the next look finds the key known."""
    written(3)
    before = in_transaction(lambda connection: inbox_rows.oldest(connection, 10))
    assert inbox.drain(now()) == 3
    with psycopg.connect(settings().required("database_url")) as connection:
        for row in before:
            connection.execute(
                "INSERT INTO usage_inbox (tenant_id, inbox_id, customer_id, event, written_at)"
                " OVERRIDING SYSTEM VALUE VALUES (%s, %s, 'ana', %s::jsonb, now())",
                (row.tenant_id, row.inbox_id, row.event.decode()),
            )

    assert inbox.drain(now()) == 3

    assert waiting() == 0
    assert wallet("ana") == 10 - 3 * 1000 * one("SELECT unit_price FROM prices WHERE category = 'llm_prompt'")[0]
    assert parked_reasons() == {}


@pytest.mark.usefixtures("ana")
def test_what_is_not_committed_is_not_there() -> None:
    """The application's transaction decides whether there was usage."""
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute(WRITE.encode())
        connection.rollback()

    assert inbox.drain(now()) == 0
    assert rows("SELECT * FROM usage_events") == []


@pytest.mark.usefixtures("ana")
def test_an_empty_inbox_costs_one_look() -> None:
    assert inbox.drain(now()) == 0
    assert rows("SELECT * FROM envelope_attempts") == []


@pytest.mark.usefixtures("ana")
def test_several_at_once_record_each_event_once() -> None:
    written(ENVELOPE_EVENTS_MAX + 1)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: [inbox.drain(now()) for _ in range(3)], range(2)))
    while waiting():
        inbox.drain(now())

    assert one("SELECT count(*), count(*) FILTER (WHERE status = 'charged') FROM usage_events") == (501, 501)
    assert parked_reasons() == {}


@pytest.mark.usefixtures("ana")
def test_a_look_takes_what_an_envelope_holds() -> None:
    """So many events, or so many bytes, whichever comes first; the order is that of the rows."""
    written(ENVELOPE_EVENTS_MAX + 1)
    assert inbox.drain(now()) == ENVELOPE_EVENTS_MAX
    assert inbox.drain(now()) == 1

    written(40, ", metadata => jsonb_build_object('text', repeat('x', 16000))")
    taken = inbox.drain(now())

    assert 1 < taken <= ENVELOPE_BYTES_MAX // 16_000
    assert waiting() == 40 - taken


@pytest.mark.usefixtures("ana")
def test_an_event_that_the_wire_refuses_is_parked_and_costs_the_others_nothing() -> None:
    """More metadata than an event may have, and a name that is too long: kept as they were written."""
    written(1, ", metadata => jsonb_build_object('text', repeat('x', 20000))")
    written(1, ", operation_type => repeat('x', 200)")
    written(2)

    assert inbox.drain(now()) == 4

    assert parked_reasons() == {"event_malformed": 2}
    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (2,)
    assert {customer for (customer,) in rows("SELECT customer_id FROM parked_inputs")} == {"ana"}


@pytest.mark.usefixtures("ana")
def test_rows_whose_workers_died_are_counted_until_they_are_halved() -> None:
    """A row that kills whoever records it is found as in any envelope: each look counts as its return."""
    written(2)
    taken = in_transaction(lambda connection: inbox_rows.oldest(connection, 10))
    first = inbox.packed(taken)
    one("INSERT INTO envelope_attempts VALUES (sha256(%s), %s, now()) RETURNING 1", first, HALVED_AT - 1)

    assert inbox.drain(now()) == 2

    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (2,)
    assert rows("SELECT * FROM envelope_attempts") == []


@pytest.mark.usefixtures("ana")
def test_a_row_is_removed_once() -> None:
    written(1)
    taken = in_transaction(lambda connection: inbox_rows.oldest(connection, 10))

    assert in_transaction(lambda connection: inbox_rows.remove(connection, [*taken, *taken])) == 1
    assert in_transaction(lambda connection: inbox_rows.remove(connection, taken)) == 0
