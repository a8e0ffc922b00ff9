"""A wallet is put right by hand: more, or less, once per key, and told as what it is."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.errors import IdempotencyConflict, InsufficientCredits, Rejected, WalletNotFound
from billing.grants import Source
from billing.reasons import FROM_ELSEWHERE, Reason, kind_of
from db.schema.metering import ENTRY_KINDS
from services.books.adjusting import Adjustment, adjust
from services.books.credits import Grant, grant
from services.desk.credit_holds import HoldWish, reserve
from services.desk.history import AskedEntries, ledger
from services.desk.wallets import balance
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import entries, one, rows, wallet

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)


@pytest.fixture(autouse=True)
def ana(billing_database: str) -> None:
    """Ten dollars."""
    assert billing_database
    catalogues(BEFORE)
    a_customer("ana", credit="10", time_zone="UTC", now=BEFORE)


def by(amount: str, key: str = "k", **more: Any) -> Adjustment:
    said: dict[str, Any] = {"reason": Reason.MANUAL_ADJUSTMENT.value} | more
    return Adjustment(TENANT, "ana", "USD", Decimal(amount), said.pop("reason"), key, **said)


def told(*values: object) -> tuple[object, ...]:
    """Decimals and whole numbers, to be compared as numbers."""
    return values


def test_value_is_taken_once_per_key() -> None:
    first, again = adjust(by("-2.5"), NOW), adjust(by("-2.5"), NOW)

    assert (first.amount, first.balance_after, first.is_new) == (Decimal("-2.5"), Decimal("7.5"), True)
    assert (again.balance_after, again.is_new) == (Decimal("7.5"), False)
    assert one("SELECT kind, contra, reason, amount FROM ledger_entries ORDER BY seq DESC LIMIT 1") == (
        "adjustment",
        "adjustments",
        "manual_adjustment",
        Decimal("-2.5"),
    )
    (now,) = balance(TENANT, "ana", NOW).wallets
    assert told(now.balance.available, now.used_total, now.received_total) == (Decimal("7.5"), 0, Decimal("7.5"))


def test_value_is_given_as_a_grant_of_that_source() -> None:
    done = adjust(by("3"), NOW)

    assert told(done.balance_after, wallet("ana")) == (13, 13)
    assert one("SELECT kind, contra FROM ledger_entries ORDER BY seq DESC LIMIT 1") == (
        "adjustment",
        "grants:adjustment",
    )
    assert one("SELECT source, amount FROM credit_grants ORDER BY number DESC LIMIT 1") == ("adjustment", 3)


@pytest.mark.parametrize("other", [by("-3"), by("2.5"), by("-2.5", reason="another")])
def test_the_same_key_moves_nothing_else(other: Adjustment) -> None:
    adjust(by("-2.5"), NOW)

    with pytest.raises(IdempotencyConflict):
        adjust(other, NOW)
    assert wallet("ana") == Decimal("7.5")


def test_it_takes_in_the_order_in_which_usage_would() -> None:
    """What was given before what was bought, and nothing of what does not pay now."""
    grant(Grant(TENANT, "ana", "USD", Decimal(4), "purchase", "bought", "b"), NOW)
    later = Grant(TENANT, "ana", "USD", Decimal(9), "free", "later", "l", valid_from=NOW + timedelta(days=1))
    grant(later, NOW)

    adjust(by("-12"), NOW)

    left = "SELECT g.source, r.remaining FROM credit_grants g JOIN grants_remaining r USING (grant_id) ORDER BY 1"
    assert rows(left) == [("free", 9), ("promo", 0), ("purchase", 2)]


def test_no_more_is_taken_than_is_available_unless_as_debt() -> None:
    """What is reserved is not available."""
    reserve(HoldWish(TENANT, "ana", "h", Decimal(4), "USD"), NOW)

    with pytest.raises(InsufficientCredits) as refused:
        adjust(by("-6.01"), NOW)
    adjust(by("-6"), NOW)
    adjust(by("-5", "more", into_debt=True), NOW)

    assert refused.value.fields == {"available": "6", "required": "6.01", "unit": "USD", "reason": "insufficient"}
    assert one("SELECT balance, debt FROM wallets") == (-1, 1)
    assert [entry.kind for entry in entries("ana")] == ["grant", "adjustment", "adjustment"]


def test_a_void_after_it_gives_back_what_usage_took() -> None:
    event = an_event("ana", [tokens(100_000)], key="e", occurred_at=NOW)
    record_usage(an_envelope(event), NOW)
    adjust(by("-7"), NOW)

    void(TENANT, "e", "sent by mistake", NOW)

    assert wallet("ana") == 3


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (by("0"), Rejected),
        (by("NaN"), Rejected),
        (by("-0.0000000000001"), Rejected),
        (by("-1", reason=""), Rejected),
        (Adjustment(TENANT, "ana", "EUR", Decimal(-1), "r", "k"), WalletNotFound),
    ],
)
def test_what_can_not_be_is_refused(asked: Adjustment, error: type[Exception]) -> None:
    with pytest.raises(error):
        adjust(asked, NOW)
    assert wallet("ana") == 10


@pytest.mark.parametrize("source", [source for source in Source if source is not Source.REFUND])
def test_an_entry_says_of_which_kind_what_arrives_is(source: Source) -> None:
    grant(Grant(TENANT, "ana", "USD", Decimal(1), source.value, "test", "g"), NOW)

    kind, contra = one("SELECT kind, contra FROM ledger_entries ORDER BY seq DESC LIMIT 1")
    assert (kind, contra) == (kind_of(source).value, f"grants:{source}")
    assert (kind == "grant") == (source not in {Source.SUBSCRIPTION, Source.ADJUSTMENT})
    asked = AskedEntries(TENANT, "ana", BEFORE, NOW + timedelta(seconds=1), kind=kind)
    assert {entry.kind for entry in ledger(asked).rows} == {kind}


def test_every_type_of_elsewhere_is_a_kind_that_is_written() -> None:
    assert {kind for kind, _ in FROM_ELSEWHERE.values()} <= set(ENTRY_KINDS)
    for kind, source in FROM_ELSEWHERE.values():
        assert source in {None, Source.PURCHASE} or kind_of(source).value == kind


@pytest.mark.parametrize("source", Source)
def test_only_two_sources_have_a_kind_of_their_own(source: Source) -> None:
    assert (kind_of(source).value == source.value) == (source in {Source.SUBSCRIPTION, Source.ADJUSTMENT})
