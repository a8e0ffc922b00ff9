"""What a tenant is told of by itself: each thing once while it holds, and anew when it is back; as signed messages."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from billing.errors import WalletNotFound
from billing.payments import AlertKind, PaymentState
from billing.prices import LadderSpan
from config.settings import settings
from db.alerts import Cause, raise_once
from db.prices import NewPrice
from db.session import in_transaction
from services.books.credits import Grant, grant
from services.collecting import guards
from services.desk.credit_holds import HoldWish, release, reserve
from services.desk.prices import load_prices
from services.desk.wallets import balance, set_low_balance
from services.metering import parked
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from services.oversight import deliveries, watching
from tests.factories import TENANT, a_customer, an_envelope, an_event, catalogues, tokens
from tests.looking import rows
from tests.services.collecting import DECLINES, GOOD, due_again, owing, payment, pays_with, taken
from tests.services.test_deliveries import deliver
from tests.services.test_wallets import counted
from tests.services.told import Tenant, a_tenants_server

pytestmark = pytest.mark.usefixtures("billing_database")

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
BEFORE = NOW - timedelta(hours=2)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
CAUSES = "SELECT kind, customer_id FROM alert_causes ORDER BY kind, subject"


@pytest.fixture
def ana() -> None:
    """Four dollars, and low below one."""
    catalogues(BEFORE)
    a_customer("ana", credit="4", time_zone="UTC", now=BEFORE)


@pytest.fixture
def tenant(ana: None) -> Iterator[Tenant]:
    with a_tenants_server() as server:
        deliveries.set_endpoint(TENANT, server.url, BEFORE)
        yield server


def use(dollars: str, key: str = "k", at: datetime = NOW, **fields: Any) -> None:
    quantity = int(Decimal(dollars) * 100_000 / 3)
    record_usage(an_envelope(an_event("ana", [tokens(quantity)], key=key, occurred_at=at, **fields)), at)


def give(amount: str, key: str = "more", source: str = "promo", now: datetime = NOW, **fields: Any) -> None:
    grant(Grant(TENANT, "ana", "USD", Decimal(amount), source, "test", key, **fields), now)


def alerts(kind: str) -> list[tuple[str, str]]:
    """What was said of a kind: about what, and its sentence."""
    return [
        (about, said) for about, said in rows("SELECT subject, detail FROM alerts WHERE kind = %s ORDER BY 1", kind)
    ]


def see_all() -> None:
    """A person has seen everything; what holds is not said again for that."""
    rows("UPDATE alerts SET seen_at = last_at WHERE seen_at IS NULL RETURNING 1")


def test_a_wallet_that_is_low_is_told_once_and_delivered(tenant: Tenant) -> None:
    assert watching.look(NOW) == 0
    use("3.3")

    assert [watching.look(NOW), watching.look(NOW + MINUTE)] == [1, 0]
    see_all()
    assert watching.look(NOW + 2 * MINUTE) == 0
    assert deliver() == 1

    (told,) = tenant.told
    assert told.json["type"] == "alert.low_balance"
    assert told.json["data"]["customer_id"] == "ana"
    assert told.json["data"]["subject"] == f"ana USD since {NOW.isoformat()}"
    assert told.json["data"]["detail"] == "customer ana has USD 0.7 available, less than 1"


def test_it_is_told_anew_when_it_was_above_in_between(tenant: Tenant) -> None:
    """Whether anybody has seen the first one or not: a second message is sent."""
    use("3.3")
    watching.look(NOW)
    give("1")
    watching.look(NOW + MINUTE)
    assert rows(CAUSES) == []
    use("1", "l")

    assert watching.look(NOW + 2 * MINUTE) == 1
    assert deliver(NOW + 2 * MINUTE) == 2


def test_at_the_threshold_it_is_not_low(ana: None) -> None:
    use("3")

    assert watching.look(NOW) == 0


def test_what_is_reserved_is_not_there(ana: None) -> None:
    held = reserve(HoldWish(TENANT, "ana", "h", Decimal("3.5"), "USD"), NOW)

    assert watching.look(NOW) == 1
    release(TENANT, held.hold_id, NOW)
    watching.look(NOW)
    assert rows(CAUSES) == []


def test_a_wallets_own_threshold_comes_before_the_setting(ana: None) -> None:
    set_low_balance(TENANT, "ana", "USD", Decimal(5))
    assert watching.look(NOW) == 1
    (wallet,) = balance(TENANT, "ana", NOW).wallets
    assert (wallet.is_low, wallet.low_below) == (True, Decimal(5))

    set_low_balance(TENANT, "ana", "USD", Decimal(0))
    watching.look(NOW)

    assert rows(CAUSES) == []
    with pytest.raises(WalletNotFound):
        set_low_balance(TENANT, "ana", "BRL", None)


def test_a_wallet_into_which_nothing_came_is_not_low_until_it_owes(ana: None) -> None:
    a_customer("bob", time_zone="UTC", now=BEFORE)
    assert watching.look(NOW) == 0

    record_usage(an_envelope(an_event("bob", [tokens(1000)], occurred_at=NOW)), NOW)

    assert watching.look(NOW) == 1
    assert rows(CAUSES) == [("low_balance", "bob")]


@pytest.mark.parametrize("threshold", ["", "100", "USD=100", "BRL=100", "0, USD=2"])
def test_low_is_what_the_balance_calls_low(ana: None, threshold: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grants of later and of before, debt, holds: the same in SQL as in the rules."""
    monkeypatch.setenv("CENTAVO_LOW_BALANCE", threshold)
    settings.cache_clear()
    give("50", "later", valid_from=NOW + DAY)
    give("50", "over", now=BEFORE, expires_at=NOW - MINUTE)
    give("50", "ends", expires_at=NOW + DAY)
    use("20")
    reserve(HoldWish(TENANT, "ana", "h", Decimal(5), "USD", seconds=86_400), NOW)

    for moment in (NOW, NOW + DAY - MINUTE, NOW + DAY, NOW + 2 * DAY):
        watching.look(moment)
        (wallet,) = balance(TENANT, "ana", moment).wallets
        assert bool(rows("SELECT 1 FROM alert_causes WHERE kind = 'low_balance'")) == wallet.is_low, moment


def test_credits_that_end_soon_are_told_once_for_each_grant(tenant: Tenant) -> None:
    """Seven days ahead, as the setting says; not what has nothing left, nor what comes again each month."""
    give("5", "soon", expires_at=NOW + 8 * DAY)
    give("6", "later", expires_at=NOW + 30 * DAY)
    give("0.5", "used up", now=BEFORE, expires_at=NOW + 2 * DAY)
    use("0.6")
    assert watching.look(NOW) == 0

    counts = [watching.look(at) for at in (NOW + 2 * DAY, NOW + 3 * DAY)]

    assert counts == [1, 0]
    ((about, said),) = alerts("credits_expiring")
    assert about.startswith("ana USD grant ")
    assert said == f"USD 4.9 of customer ana (promo) end at {(NOW + 8 * DAY).isoformat()}"
    assert deliver(NOW + 3 * DAY) == 1
    watching.look(NOW + 9 * DAY)
    assert rows(CAUSES) == []


@pytest.mark.parametrize(("looked_at_once", "said_at_once"), [(1, 1), (3, 1), (2, 2), (100, 2)])
def test_many_wallets_are_looked_at_some_at_a_time(
    ana: None, looked_at_once: int, said_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of seven, four are low, two of them side by side; each is said once, and let go when it is low no more."""
    monkeypatch.setattr(watching, "LOOKED_AT_ONCE", looked_at_once)
    monkeypatch.setattr(watching, "SAID_AT_ONCE", said_at_once)
    given = {"bo": "0.5", "cy": "5", "di": "0.1", "ed": "0.9", "fi": "2", "gil": "0.3"}
    for name, credit in given.items():
        a_customer(name, credit=credit, time_zone="UTC", now=BEFORE)

    assert [watching.look(NOW), watching.look(NOW + MINUTE)] == [4, 0]
    assert [who for _, who in rows(CAUSES)] == ["bo", "di", "ed", "gil"]
    for name in ("di", "gil"):
        grant(Grant(TENANT, name, "USD", Decimal(1), "promo", "test", f"more:{name}"), NOW)

    assert watching.look(NOW + 2 * MINUTE) == 0
    assert [who for _, who in rows(CAUSES)] == ["bo", "ed"]


@pytest.mark.parametrize(("looked_at_once", "said_at_once"), [(1, 1), (3, 1), (2, 2), (100, 2)])
def test_many_grants_are_looked_at_some_at_a_time(
    ana: None, looked_at_once: int, said_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of eight, five end soon and are not used up, four of them at one moment."""
    monkeypatch.setattr(watching, "LOOKED_AT_ONCE", looked_at_once)
    monkeypatch.setattr(watching, "SAID_AT_ONCE", said_at_once)
    give("0.5", "used up", now=BEFORE, expires_at=NOW + DAY)
    use("0.6")
    for number in range(4):
        give("5", f"together {number}", expires_at=NOW + 2 * DAY)
    give("5", "now", now=BEFORE, expires_at=NOW)
    give("5", "last", expires_at=NOW + 7 * DAY)
    give("5", "later", expires_at=NOW + 7 * DAY + MINUTE)

    assert [watching.look(NOW), watching.look(NOW + timedelta(seconds=30))] == [5, 0]
    assert len(alerts("credits_expiring")) == 5
    assert watching.look(NOW + MINUTE) == 1


def test_a_look_whose_time_is_over_is_gone_on_with(ana: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three wallets and five grants; each look has time for one of either, and begins anew when it has seen all."""
    monkeypatch.setattr(watching, "LOOKED_AT_ONCE", 1)
    monkeypatch.setattr(watching, "LOOKED_FOR_SECONDS", 0.0)
    for name in ("bo", "cy"):
        a_customer(name, credit="0.5", time_zone="UTC", now=BEFORE)
    for number in range(5):
        give("5", f"{number}", expires_at=NOW + DAY)

    assert [watching.look(NOW + number * MINUTE) for number in range(6)] == [1, 2, 2, 1, 1, 0]
    give("5", "another", expires_at=NOW + DAY - MINUTE)
    assert sum(watching.look(NOW + number * MINUTE) for number in range(6, 13)) == 1


def test_a_product_without_a_price_is_told_with_the_first_event(tenant: Tenant) -> None:
    """In the transaction that parks it; again only after nothing waited for it any more."""
    new = [tokens(10, model="gpt-9")]
    for number in range(3):
        record_usage(an_envelope(*(an_event("ana", new, key=f"{number}-{n}", occurred_at=NOW) for n in (1, 2))), NOW)
    see_all()
    record_usage(an_envelope(an_event("ana", new, key="after", occurred_at=NOW)), NOW)
    watching.look(NOW)

    assert deliver() == 1
    (told,) = tenant.told
    assert told.json["type"] == "alert.unpriced"
    assert told.json["data"]["detail"] == (
        "llm_prompt/openai/gpt-9/token has no price, and events wait for one: add it, then replay what is parked; "
        "the first is 0-1"
    )

    price = NewPrice(
        "", "llm_prompt", "openai", "gpt-9", "token", "USD", Decimal(1), Decimal(1_000_000), (), LadderSpan.EVENT,
        is_provider_default=False, is_ended=False, effective_from=BEFORE, revision=0, description=None,
    )  # fmt: skip
    load_prices([price], NOW)
    watching.look(NOW)
    assert rows(CAUSES) == [("unpriced", None)]
    parked.replay_all(NOW + MINUTE)
    watching.look(NOW + MINUTE)
    assert rows(CAUSES) == []


def test_what_is_voided_waits_for_no_price(ana: None) -> None:
    new = [tokens(10, model="a_b%c"), tokens(1)]
    record_usage(an_envelope(an_event("ana", new, key="k", occurred_at=NOW)), NOW)
    watching.look(NOW)
    assert rows(CAUSES) == [("unpriced", None)]

    void(TENANT, "k", "a mistake", NOW)
    watching.look(NOW)

    assert rows(CAUSES) == []


def test_a_product_is_told_once_though_a_transaction_is_rolled_back(ana: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is parked and what is said of it are one."""

    def fails(_point: str) -> None:
        raise RuntimeError

    monkeypatch.setattr("config.faults.reached", fails)
    envelope = an_envelope(an_event("ana", [tokens(1, model="gpt-9")], key="k", occurred_at=NOW))
    with pytest.raises(RuntimeError):
        record_usage(envelope, NOW)
    assert alerts("unpriced") == []
    monkeypatch.undo()

    record_usage(envelope, NOW)
    record_usage(envelope, NOW)

    assert len(alerts("unpriced")) == 1


def test_usage_without_anything_to_say_sends_no_statement_more(ana: None) -> None:
    use("1", "warm")
    with counted() as statements:
        use("1", "l")

    assert not [one for one in statements if "alert" in one]


def told_of_payments() -> list[tuple[str, str]]:
    return rows("""
        SELECT kind, split_part(subject, ' ', 3) FROM alerts
        WHERE kind IN ('payment_failed', 'payment_given_up') ORDER BY alert_id
    """)


def test_each_attempt_that_fails_is_told_once_and_the_last_one_as_that() -> None:
    """By the answer, however often it is asked; seen by a person or not."""
    (due,) = owing(DECLINES)
    while payment(due, "state") != (PaymentState.UNCOLLECTIBLE,):
        at = due_again(due)
        taken(due, at)
        taken(due, at)
        see_all()

    said = told_of_payments()

    tries = len(said)
    assert said == [*(("payment_failed", str(number)) for number in range(1, tries)), ("payment_given_up", str(tries))]
    assert tries == 5
    (last,) = rows("SELECT detail FROM alerts WHERE kind = 'payment_given_up'")
    assert "BRL 100.00 of customer ana (tier 1) did not come in: declined" in last[0]


def test_a_payment_without_a_card_is_told() -> None:
    (due,) = owing(None)

    taken(due)
    taken(due)

    assert told_of_payments() == [("payment_given_up", "0")]


def test_a_payment_that_comes_in_is_no_alert() -> None:
    (due,) = owing()

    assert taken(due) is PaymentState.SUCCEEDED
    assert told_of_payments() == []


def test_the_stop_loss_is_told_once_while_it_holds_and_anew_when_it_is_back() -> None:
    """Five unpaid tiers are what the plan bears."""
    first, second, *_ = owing(None, tiers=5)
    see_all()
    now = datetime.now(UTC)
    record_usage(an_envelope(an_event("ana", [tokens(8_000_000)], key="sixth")), now)
    watching.look(now)
    assert [about.split(" ")[0] for about, _ in alerts("open_tiers")] == ["ana"]

    pays_with(GOOD)
    assert {taken(first), taken(second)} == {PaymentState.SUCCEEDED}
    watching.look(now)
    assert guards.is_affordable(TENANT, "ana")
    assert rows(CAUSES) == []
    record_usage(an_envelope(an_event("ana", [tokens(8_000_000)], key="seventh")), now + MINUTE)

    assert len(alerts("open_tiers")) == 2


def test_what_holds_no_more_is_let_go_of_however_many_there_are(ana: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Looked at some at a time, and all of it with each tick."""
    monkeypatch.setattr(watching, "SAID_AT_ONCE", 1)
    a_customer("zoe")
    causes = [Cause(TENANT, AlertKind.OPEN_TIERS, name, name, name, "three stand open") for name in ("ana", "zoe")]
    in_transaction(lambda connection: raise_once(connection, causes, NOW))

    watching.look(NOW)

    assert rows(CAUSES) == []
