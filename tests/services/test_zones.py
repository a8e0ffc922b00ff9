"""Time zones are those that Python and Postgres both know, and mean the same by; wherever one is named."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from billing.errors import Rejected
from db import zones as zone_rows
from db.session import in_transaction
from services.books.customers import NewCustomer, create_customers
from services.books.zones import check_zone
from services.cycle import subscriptions
from services.desk.history import Asked, Unit, aggregated
from services.desk.quotas import Wanted, set_quota
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, rows

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
NO_ZONES = ["localtime", "posixrules", "Factory", "right/UTC", "posix/Europe/Lisbon", "CET", "EST5", "utc ", "", "a\0b"]

pytestmark = pytest.mark.usefixtures("billing_database")

PLACES: dict[str, Callable[[str], object]] = {
    "a customer": lambda zone: create_customers([NewCustomer(TENANT, "bob", "prepaid", zone)], NOW),
    "a change": lambda zone: subscriptions.change_zone(TENANT, "ana", zone, NOW),
    "a quota": lambda zone: set_quota(Wanted(TENANT, "q", Decimal(1), time_zone=zone), NOW),
    "a question": lambda zone: aggregated(Asked(TENANT, None, NOW - timedelta(days=1), NOW), Unit.DAY, zone),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_postgres_does_not_know_is_refused_wherever_it_is_named(place: str) -> None:
    """And nobody else's questions fail because of it."""
    catalogues(NOW)
    a_customer("ana", now=NOW)

    for zone in NO_ZONES:
        with pytest.raises(Rejected, match="is not a time zone; names look like America/Sao_Paulo"):
            PLACES[place](zone)

    assert rows("SELECT customer_id, time_zone FROM customers") == [("ana", "America/Sao_Paulo")]
    assert one("SELECT count(*) FROM token_usage_summary") == (1,)


@pytest.mark.parametrize("place", PLACES)
def test_what_both_know_is_taken(place: str) -> None:
    catalogues(NOW)
    a_customer("ana", now=NOW)

    PLACES[place]("Europe/Lisbon")


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo", "Asia/Kathmandu", "Pacific/Kiritimati", "Etc/GMT+3"])
def test_zones_are_zones(zone: str) -> None:
    check_zone(zone)


def test_a_transaction_goes_on_after_a_zone_that_is_none() -> None:
    told = in_transaction(
        lambda connection: [zone_rows.local_times(connection, zone, [NOW]) for zone in ("Mars/Olympus", "UTC")]
    )

    assert told == [None, [NOW.replace(tzinfo=None)]]
