"""What has happened, summed up."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from services.collecting.voiding import void
from services.cycle.months import turn_due
from services.desk.overview import hold
from services.desk.reports import CustomerSummary, Progress, customers_of, progress, standing
from services.metering.usage import record_usage
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import one

pytestmark = pytest.mark.usefixtures("billing_database")


def test_nothing_has_happened_yet() -> None:
    """Zeros, not errors."""
    assert customers_of(TENANT) == []
    assert progress(datetime.now(UTC)) == Progress(0, 0, payments=0, payments_waiting=0, periods_unopened=0)
    assert standing(datetime.now(UTC), datetime.now(UTC)).payment_lag_seconds == 0


def test_every_customer_is_summed_up_over_all_months() -> None:
    """Also one who has used nothing; what is parked is not counted as used."""
    october, november = datetime(2026, 10, 20, tzinfo=UTC), datetime(2026, 11, 20, tzinfo=UTC)
    catalogues(october)
    a_customer("ana", credit="10", currencies=("USD", "CREDIT"))
    a_customer("eva", plan="tiers-8m", currencies=("BRL",))
    a_customer("idle")
    for moment in (october, november):
        envelope = an_envelope(
            an_event("ana", occurred_at=moment),
            an_event("ana", [tokens(5, model="gpt-99")], occurred_at=moment),
            an_event("eva", [tokens(9_000_000)], occurred_at=moment),
        )
        record_usage(envelope, moment)
    (waived,) = one("SELECT payment_id FROM payments WHERE period_start < '2026-11-01'")
    void(TENANT, waived, "courtesy", november)

    assert customers_of(TENANT) == [
        CustomerSummary("ana", "prepaid", 2, 2000, Decimal("0.06"), {"CREDIT": Decimal(0), "USD": Decimal("9.94")}, {}),
        CustomerSummary(
            "eva",
            "tiers-8m",
            2,
            18_000_000,
            Decimal(0),
            {"BRL": Decimal(0)},
            {("tier", "due"): (1, 10_000), ("tier", "voided"): (1, 10_000)},
        ),
        CustomerSummary("idle", "prepaid", 0, 0, Decimal(0), {"USD": Decimal(0)}, {}),
    ]
    assert customers_of("another") == []
    assert progress(october) == Progress(4, 2, payments=2, payments_waiting=1, periods_unopened=2)


def test_what_is_held_back_does_not_wait() -> None:
    """Nobody would collect it, however long one waits."""
    now = datetime.now(UTC)
    catalogues(now)
    for name in ("ana", "eva"):
        a_customer(name, plan="tiers-8m", currencies=("BRL",))
    turn_due(now)
    assert progress(now).payments_waiting == 2

    hold(TENANT, "eva", "asks for an invoice", now)

    assert progress(now) == Progress(0, 0, payments=2, payments_waiting=1, periods_unopened=0)


def test_the_lag_is_the_age_of_the_oldest_payment_that_is_due() -> None:
    """What is due later, such as a second try, does not lag."""
    now = datetime.now(UTC)
    catalogues(now)
    a_customer("eva", plan="tiers-8m", currencies=("BRL",))
    record_usage(an_envelope(an_event("eva", [tokens(17_000_000)])), now)
    one("UPDATE payments SET due_at = %s WHERE tier = 1 RETURNING 1", now + timedelta(days=1))
    one("UPDATE payments SET due_at = %s WHERE tier = 2 RETURNING 1", now - timedelta(seconds=90))

    found = standing(now, now)

    assert found.payment_lag_seconds == 90
    assert (found.charged, found.parked, found.payments, found.payments_waiting) == (1, {}, 2, 2)
