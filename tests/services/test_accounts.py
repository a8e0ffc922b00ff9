"""What is kept of customers between transactions, and what is not even read of them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from billing.errors import DatabaseUnavailable
from config.settings import settings
from db.session import Connection, in_transaction
from services.books import accounts, catalogue, periods
from services.books.accounts import Account, TermsUnread
from services.metering.usage import record_usage
from services.oversight.audit import audit
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues
from tests.looking import one, rows

pytestmark = pytest.mark.usefixtures("billing_database")

MONTH = timedelta(days=31)


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    accounts.forget_all()
    yield
    accounts.forget_all()


def found(customer: str, now: datetime) -> Account:
    return in_transaction(lambda connection: accounts.find(connection, {(TENANT, customer)}, now)[0][TENANT, customer])


def used(now: datetime, *moments: datetime) -> None:
    record_usage(an_envelope(*(an_event(occurred_at=moment) for moment in moments)), now)


def begun() -> list[tuple[object, ...]]:
    return rows(
        "SELECT to_char(starts_at AT TIME ZONE time_zone, 'YYYY-MM-DD'), events FROM periods ORDER BY starts_at"
    )


def in_month(day: int, month: int = 11) -> datetime:
    return datetime(2026, month, day, 15, tzinfo=UTC)


def test_of_a_customer_with_a_period_of_now_its_terms_are_not_read() -> None:
    now = in_month(10)
    catalogues(in_month(1, 9))
    a_customer(credit="100", now=in_month(1, 9))

    assert found("ana", now).terms.plan == ("prepaid", 1)
    used(now, now)

    with pytest.raises(TermsUnread):
        _ = found("ana", now).terms
    assert found("ana", now + 2 * MONTH).periods == found("ana", now).periods


def test_usage_of_a_month_without_a_row_begins_it_all_the_same() -> None:
    """What is kept of the customer does not say on which terms; then it is read."""
    now = in_month(20)
    catalogues(in_month(1, 9))
    a_customer(credit="100", now=in_month(20))
    used(now, now)
    accounts.forget_all()

    used(now, in_month(18), in_month(28, 10), in_month(19))

    assert begun() == [("2026-10-01", 1), ("2026-11-01", 3)]
    assert one("SELECT count(*) FROM usage_events WHERE status = 'charged'") == (4,)
    assert audit().differences == 0


def test_what_is_kept_of_a_month_that_is_over_begins_the_next() -> None:
    now = in_month(29)
    catalogues(in_month(1, 9))
    a_customer(credit="100", now=in_month(20))
    used(now, now)
    used(now + timedelta(minutes=1), now)

    later = in_month(2, 12)
    used(later, later, now)

    assert begun() == [("2026-11-01", 3), ("2026-12-01", 1)]
    assert audit().differences == 0


def test_a_customer_without_wallets_is_one() -> None:
    """It is known, so its usage is parked in a row of its own, and no stranger's."""
    catalogues()
    a_customer(currencies=())

    used(datetime.now(UTC), datetime.now(UTC))

    assert rows("SELECT status, park_reason FROM usage_events") == [("parked", "currency_mismatch")]


A_WALLET = b"INSERT INTO wallets (tenant_id, customer_id, currency, created_at) VALUES (%s, 'ana', %s, now())"


class GaveUpError(Exception):
    """Something else of the same transaction went wrong."""


def test_what_a_transaction_read_that_was_rolled_back_fails_nobody() -> None:
    """A wallet that never came to be, at a revision that is then another's: usage reads again what there is."""
    now = in_month(10)
    catalogues(in_month(1, 9))
    for name in ("ana", "bob"):
        a_customer(name, credit="100", now=in_month(1, 9))

    def opened_for_nothing(connection: Connection) -> None:
        connection.execute(A_WALLET, (TENANT, "BRL"))
        accounts.read(connection, {(TENANT, "ana")}, now)
        raise GaveUpError

    with pytest.raises(GaveUpError):
        in_transaction(opened_for_nothing)
    with psycopg.connect(settings().required("database_url")) as another:
        another.execute(A_WALLET, (TENANT, "EUR"))

    events = [an_event(who, key=who, occurred_at=now) for who in ("ana", "bob")]
    assert record_usage(an_envelope(*events), now).charged == 2


def test_a_month_that_was_not_begun_after_all_is_not_kept() -> None:
    now = in_month(10)
    catalogues(in_month(1, 9))
    a_customer("ana", credit="100", now=in_month(1, 9))

    def begun_for_nothing(connection: Connection) -> None:
        periods.current(connection, [(TENANT, "ana")], now)
        raise GaveUpError

    with pytest.raises(GaveUpError):
        in_transaction(begun_for_nothing)

    used(now, now)
    assert begun()[-1] == ("2026-11-01", 1)


def test_nothing_is_kept_of_a_database_that_was_lost() -> None:
    """It may be another when it comes back: of an earlier time, in which a revision meant something else."""
    now = in_month(10)
    catalogues(in_month(1, 9))
    a_customer("ana", credit="100", now=in_month(1, 9))
    used(now, now)
    kept = found("ana", now), catalogue.without_quotas(TENANT)

    with pytest.raises(DatabaseUnavailable):
        in_transaction(lambda connection: connection.execute("SELECT pg_terminate_backend(pg_backend_pid())"))

    assert None not in kept
    assert catalogue.without_quotas(TENANT) is None
    assert found("ana", now) is not kept[0]
