"""Top-ups: value bought by request and by rule, credited once, and gone again when the money goes back."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from celery import Celery

from billing.errors import IdempotencyConflict, Rejected, WalletNotFound
from billing.payments import PaymentState
from config.settings import settings
from db.session import in_transaction
from sandbox.processes import await_condition
from services.books.credits import Grant, grant
from services.collecting.gateways import gateway
from services.collecting.refunds import carry_out, refund
from services.collecting.sync import sync
from services.collecting.topups import Offer, TopUp, look_for_low_wallets, request, set_rule
from services.collecting.voiding import void
from services.metering.usage import record_usage
from tests.conftest import WorkerStarter
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import entries, one, rows, wallet
from tests.services.collecting import GOOD, at_stripe, captured, payment, pays_with, taken

pytestmark = pytest.mark.usefixtures("billing_database")

FIFTY = Offer(Decimal(50), 25_000, "BRL")
NOVEMBER = datetime(2026, 11, 10, 12, tzinfo=UTC)
DECEMBER = datetime(2026, 12, 1, tzinfo=UTC)


@pytest.fixture
def ana(billing_database: str) -> str:
    """A customer with an empty wallet and a good card."""
    catalogues()
    a_customer("ana", currencies=("USD", "CREDIT"))
    pays_with(GOOD)
    return "ana"


def wanted(customer: str, offer: Offer = FIFTY, key: str = "k", now: datetime = NOVEMBER) -> TopUp:
    return request(TENANT, customer, "USD", offer, key, now)


def ruled(customer: str, cap: int = 100_000, now: datetime = NOVEMBER, *, is_active: bool = True) -> None:
    """Below 10, 50 are bought for BRL 250.00."""
    set_rule(TENANT, customer, "USD", Decimal(10), FIFTY, cap, now, is_active=is_active)


def spend(customer: str, amount: int) -> None:
    """A little more than that, at USD 0.03 a thousand tokens."""
    record_usage(an_envelope(an_event(customer, [tokens(amount * 100_000 // 3 + 1)])), datetime.now(UTC))


def references() -> list[str]:
    return [
        name for (name,) in rows("SELECT reference FROM payments WHERE kind = 'top_up' ORDER BY created_at, reference")
    ]


def take_all(now: datetime = NOVEMBER) -> None:
    for (payment_id,) in rows("SELECT payment_id FROM payments WHERE state = 'due'"):
        assert taken(payment_id, now) is PaymentState.SUCCEEDED


def test_a_requested_top_up_is_credited_when_it_has_come_in_and_once(ana: str) -> None:
    """However often Stripe tells that it succeeded."""
    top_up = wanted(ana)
    assert wallet(ana) == 0
    assert payment(top_up.payment_id) == ("due", 0, NOVEMBER)

    assert taken(top_up.payment_id, NOVEMBER) is PaymentState.SUCCEEDED
    intent = gateway().retrieve_intent(payment(top_up.payment_id, "stripe_payment_intent_id")[0])
    for source in ("webhook", "webhook", "reconciler"):
        in_transaction(lambda c, s=source: sync(c, TENANT, top_up.payment_id, intent, NOVEMBER, source=s))  # type: ignore[misc]

    assert wallet(ana) == 50
    assert [(entry.kind, entry.amount) for entry in entries(ana)] == [("purchase", Decimal(50))]
    assert captured() == {top_up.payment_id: (25_000, 1)}
    assert one("SELECT payment_id, contra FROM ledger_entries") == (top_up.payment_id, "stripe:brl")


def test_the_same_key_asks_for_one_payment_for_ever(ana: str) -> None:
    """Also in another month, and after it has come in."""
    first = wanted(ana)
    again = wanted(ana)
    taken(first.payment_id, NOVEMBER)
    later = wanted(ana, now=DECEMBER)

    assert (first.is_new, again.is_new, later.is_new) == (True, False, False)
    assert {first.payment_id, again.payment_id, later.payment_id} == {first.payment_id}
    assert later.state is PaymentState.SUCCEEDED
    assert one("SELECT count(*) FROM payments") == (1,)


def test_the_same_key_for_something_else_is_a_conflict(ana: str) -> None:
    wanted(ana)

    for value, amount_minor, currency in ((51, 25_000, "BRL"), (50, 25_001, "BRL"), (50, 25_000, "USD")):
        with pytest.raises(IdempotencyConflict, match=r"BRL 250\.00"):
            wanted(ana, Offer(Decimal(value), amount_minor, currency))
    with pytest.raises(IdempotencyConflict):
        request(TENANT, ana, "CREDIT", FIFTY, "k", NOVEMBER)

    assert references() == ["request:k"]


def test_several_who_ask_at_once_with_one_key_make_one_payment(ana: str) -> None:
    """At midnight, when the month in a payment's name changes."""
    times = [DECEMBER - timedelta(seconds=1), DECEMBER] * 4

    with ThreadPoolExecutor(2) as pool:
        asked = list(pool.map(lambda now: wanted(ana, now=now), times))

    assert sum(one.is_new for one in asked) == 1
    assert len({one.payment_id for one in asked}) == 1


@pytest.mark.parametrize(
    "offer",
    [
        Offer(Decimal(0), 100, "BRL"),
        Offer(Decimal(-1), 100, "BRL"),
        Offer(Decimal("NaN"), 100, "BRL"),
        Offer(Decimal("1E30"), 100, "BRL"),
        Offer(Decimal("0.0000000000001"), 100, "BRL"),
        Offer(Decimal(1), 0, "BRL"),
        Offer(Decimal(1), 2**63, "BRL"),
        Offer(Decimal(1), 10**80, "BRL"),
        Offer(Decimal(1), 100, "brl"),
        Offer(Decimal(1), 100, "CREDIT"),
        Offer(Decimal(1), 100, "KWD"),
    ],
)
def test_what_no_wallet_or_card_could_hold_is_refused(ana: str, offer: Offer) -> None:
    with pytest.raises(Rejected):
        wanted(ana, offer)
    with pytest.raises(WalletNotFound):
        request(TENANT, ana, "EUR", FIFTY, "k", NOVEMBER)

    assert references() == []


def test_a_refund_takes_the_value_back_into_debt_if_it_was_spent(ana: str) -> None:
    """In parts, each with its share; the last takes all that is left."""
    top_up = wanted(ana)
    taken(top_up.payment_id)
    spend(ana, 40)
    spent = 50 - wallet(ana)

    balances = []
    for number, part in enumerate([10_000, None]):
        asked = refund(TENANT, top_up.payment_id, part, "a test", f"r{number}", datetime.now(UTC))
        for _ in range(2):
            carry_out(TENANT, asked.refund_id, gateway(), datetime.now(UTC))
        balances.append(wallet(ana))

    assert spent > 40
    assert balances == [30 - spent, -spent]
    assert [(entry.kind, entry.amount) for entry in entries(ana)] == [
        ("purchase", 50),
        ("usage", -spent),
        ("refund", -20),
        ("refund", -30),
    ]
    assert payment(top_up.payment_id, "state, refunded_minor, credit_given") == ("refunded", 25_000, 0)


def test_a_low_wallet_tops_itself_up(ana: str) -> None:
    """Once while that is under way, and again when it is low again."""
    ruled(ana)

    assert [look_for_low_wallets(NOVEMBER) for _ in range(3)] == [1, 0, 0]
    take_all()
    assert wallet(ana) == 50
    assert look_for_low_wallets(NOVEMBER) == 0
    spend(ana, 45)
    assert [look_for_low_wallets(NOVEMBER) for _ in range(2)] == [1, 0]
    take_all()

    assert references() == ["auto:USD:1", "auto:USD:2"]
    assert [(entry.kind, entry.amount) for entry in entries(ana) if entry.kind != "usage"] == [
        ("purchase", Decimal(50))
    ] * 2
    assert one("SELECT source, why FROM payment_log ORDER BY entry_id LIMIT 1") == (
        "rule",
        "the wallet was below the threshold of its rule",
    )


def test_a_wallet_at_its_threshold_is_not_low(ana: str) -> None:
    ruled(ana)
    grant(Grant(TENANT, ana, "USD", Decimal(10), "promo", "bonus", "g"), NOVEMBER)

    assert look_for_low_wallets(NOVEMBER) == 0

    spend(ana, 1)
    assert look_for_low_wallets(NOVEMBER) == 1


def test_no_more_than_the_cap_is_bought_in_a_month_and_a_person_is_told_once(ana: str) -> None:
    ruled(ana, cap=60_000)
    for _ in range(2):
        assert look_for_low_wallets(NOVEMBER) == 1
        take_all()
        spend(ana, 60)

    assert [look_for_low_wallets(NOVEMBER + timedelta(hours=hour)) for hour in range(3)] == [0, 0, 0]
    kind, times, detail = one("SELECT kind, times, detail FROM alerts")
    one("UPDATE alerts SET seen_at = last_at RETURNING 1")
    assert look_for_low_wallets(NOVEMBER + timedelta(days=1)) == 0
    assert (kind, times) == ("top_up_cap", 1)
    assert "BRL 500.00 of BRL 600.00" in detail
    assert look_for_low_wallets(DECEMBER) == 1

    assert one("SELECT count(*) FROM alerts") == (1,)
    assert references() == ["auto:USD:1", "auto:USD:2", "auto:USD:1"]


def test_a_higher_cap_lets_the_rule_go_on(ana: str) -> None:
    ruled(ana, cap=25_000)
    look_for_low_wallets(NOVEMBER)
    take_all()
    spend(ana, 60)
    assert look_for_low_wallets(NOVEMBER) == 0

    ruled(ana, cap=50_000, now=NOVEMBER + timedelta(hours=1))

    assert look_for_low_wallets(NOVEMBER + timedelta(hours=2)) == 1


def test_a_cap_that_allows_nothing_is_refused(ana: str) -> None:
    with pytest.raises(Rejected, match="raise the cap"):
        ruled(ana, cap=24_999)


@pytest.mark.parametrize("cap", [2**63, 10**80, 10**5000], ids=["bigint", "digits", "more than Python writes"])
def test_a_cap_that_no_row_could_hold_is_refused(ana: str, cap: int) -> None:
    with pytest.raises(Rejected, match="more than is kept"):
        ruled(ana, cap=cap)


def test_two_sweeps_at_once_top_up_once(ana: str) -> None:
    names = [a_customer(f"c{number}", currencies=("USD",)) for number in range(10)]
    for name in names:
        ruled(name)

    with ThreadPoolExecutor(2) as pool:
        numbers = list(pool.map(lambda _: look_for_low_wallets(NOVEMBER), range(8)))

    assert sum(numbers) == 10
    assert one("SELECT count(*), count(DISTINCT customer_id) FROM payments") == (10, 10)


def test_a_rule_that_is_switched_off_or_whose_customer_is_held_buys_nothing(ana: str) -> None:
    ruled(ana, is_active=False)
    assert look_for_low_wallets(NOVEMBER) == 0
    ruled(ana)
    one(
        "INSERT INTO customer_holds (tenant_id, customer_id, reason, since, detail)"
        " VALUES (%s, %s, 'disputed', %s, '') RETURNING 1",
        TENANT,
        ana,
        NOVEMBER,
    )

    assert look_for_low_wallets(NOVEMBER) == 0

    assert references() == []


def test_a_top_up_that_was_given_back_is_not_bought_again_by_itself(ana: str) -> None:
    """That would undo the refund; the rule goes on when it is set anew."""
    ruled(ana)
    look_for_low_wallets(NOVEMBER)
    take_all()
    (top_up,) = one("SELECT payment_id FROM payments")
    asked = refund(TENANT, top_up, None, "a test", "r", NOVEMBER)
    carry_out(TENANT, asked.refund_id, gateway(), NOVEMBER + timedelta(minutes=1))
    assert wallet(ana) == 0

    assert look_for_low_wallets(NOVEMBER + timedelta(hours=1)) == 0
    ruled(ana, now=NOVEMBER + timedelta(hours=2))
    assert look_for_low_wallets(NOVEMBER + timedelta(hours=3)) == 1

    assert references() == ["auto:USD:1", "auto:USD:2"]


def test_a_top_up_that_was_voided_makes_room_for_another(ana: str) -> None:
    ruled(ana, cap=25_000)
    look_for_low_wallets(NOVEMBER)
    (top_up,) = one("SELECT payment_id FROM payments")

    void(TENANT, UUID(str(top_up)), "a mistake", NOVEMBER)
    assert look_for_low_wallets(NOVEMBER) == 1

    assert references() == ["auto:USD:1", "auto:USD:2"]
    take_all()
    assert wallet(ana) == 50
    assert len(at_stripe("/v1/payment_intents")["data"]) == 1


def test_the_sweep_tops_up_and_the_card_is_charged(start_a_worker: WorkerStarter, ana: str) -> None:
    """End to end, by a real worker; the sweep twice."""
    ruled(ana)
    start_a_worker(queues="payments,ticks")

    with Celery(broker=settings().required("broker_url"), set_as_current=False) as app:
        for task in ("centavo.sweep_top_ups", "centavo.sweep_top_ups"):
            app.send_task(task, queue="ticks")
        await_condition(lambda: references() == ["auto:USD:1"], 30, "the top-up to fall due")
        app.send_task("centavo.sweep_payments", queue="ticks")
        await_condition(lambda: wallet(ana) == 50, 30, "the wallet to be credited")

    assert references() == ["auto:USD:1"]
    assert [taken_minor for taken_minor, _ in captured().values()] == [25_000]
