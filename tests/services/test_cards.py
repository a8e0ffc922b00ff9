"""Cards: attached by us, given in a browser, told by Stripe in any order."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
import requests

from billing.errors import CustomerNotFound
from billing.payments import PaymentState
from config.settings import SANDBOX_STRIPE_KEY, settings
from payments.gateway import GatewayRejected
from sandbox.stripe_double.control import DoubleControl
from services.collecting import cards, webhooks
from services.collecting.cards import CardNotFound
from services.collecting.gateways import gateway
from tests.api.serving import served_api
from tests.api.signed import PATH, SECRET
from tests.factories import TENANT, a_customer, catalogues
from tests.looking import one, rows
from tests.services.collecting import GOOD, at_stripe, owing, payment, taken

pytestmark = pytest.mark.usefixtures("billing_database")

MASTERCARD = "pm_card_mastercard"


@pytest.fixture
def double() -> DoubleControl:
    return DoubleControl(settings().stripe_api_base or "")


@pytest.fixture
def delivering(double: DoubleControl, monkeypatch: pytest.MonkeyPatch) -> Iterator[DoubleControl]:
    """The double delivers to the API; nobody works what is kept, until the test does."""
    monkeypatch.setenv("CENTAVO_STRIPE_WEBHOOK_SECRETS", SECRET)
    settings.cache_clear()
    with served_api() as url:
        double.set_webhooks(f"{url}{PATH}", SECRET)
        yield double


@pytest.fixture
def ana() -> str:
    catalogues()
    return a_customer("ana")


def now() -> datetime:
    return datetime.now(UTC)


def attach(card: str = GOOD, at: datetime | None = None) -> str:
    return cards.attach(TENANT, "ana", card, gateway(), at or now())


def default() -> str | None:
    (card,) = one("SELECT default_payment_method_id FROM customers WHERE customer_id = 'ana'")
    return str(card) if card else None


def at_stripe_confirm(setup: str, card: str) -> str:
    """The customer's browser gives a card; its id."""
    with requests.Session() as http:
        http.trust_env = False
        headers = {"Authorization": f"Bearer {SANDBOX_STRIPE_KEY}", "Stripe-Version": "2026-10-28.endive"}
        url = f"{settings().stripe_api_base}/v1/setup_intents/{setup}/confirm"
        answer = http.post(url, data={"payment_method": card}, headers=headers, timeout=15)
    return str(answer.json()["payment_method"])


def work_all(order: str = "created_at, event_id") -> list[str]:
    waiting = rows(f"SELECT event_id FROM webhook_events WHERE worked_at IS NULL ORDER BY {order}")
    return [str(webhooks.work(event_id, gateway(), now())) for (event_id,) in waiting]


def test_a_card_makes_a_customer_at_stripe_and_is_kept_without_its_number(ana: str) -> None:
    card = attach()

    (known,) = cards.cards_of(TENANT, ana)
    (stripe_customer,) = at_stripe("/v1/customers")["data"]
    assert (known.payment_method_id, known.brand, known.last4, known.is_default) == (card, "visa", "4242", True)
    assert known.exp_year is not None
    assert one("SELECT stripe_customer_id, default_payment_method_id FROM customers") == (stripe_customer["id"], card)
    assert stripe_customer["metadata"]["customer_id"] == "ana"
    assert "4242424242424242" not in str(rows("SELECT * FROM payment_methods"))


def test_a_card_chosen_later_takes_the_place_of_the_one_before(ana: str) -> None:
    first, second = attach(), attach(MASTERCARD)

    assert default() == second
    assert [(card.payment_method_id, card.is_default) for card in cards.cards_of(TENANT, ana)] == [
        (second, True),
        (first, False),
    ]
    assert attach(first) == first
    assert default() == first


def test_a_card_that_is_refused_changes_nothing(ana: str) -> None:
    before = attach()

    with pytest.raises(GatewayRejected):
        attach("pm_card_chargeDeclined")

    assert default() == before
    assert len(cards.cards_of(TENANT, ana)) == 1


def test_a_crash_after_the_customer_was_made_makes_no_second_one(ana: str) -> None:
    attach()
    one("UPDATE customers SET stripe_customer_id = NULL, default_payment_method_id = NULL RETURNING 1")

    attach(MASTERCARD)

    assert len(at_stripe("/v1/customers")["data"]) == 1


def test_a_card_belongs_to_somebody() -> None:
    catalogues()

    with pytest.raises(CustomerNotFound):
        cards.attach(TENANT, "nobody", GOOD, gateway(), now())
    with pytest.raises(CustomerNotFound):
        cards.start_setup(TENANT, "nobody", gateway(), now())
    with pytest.raises(CustomerNotFound):
        cards.cards_of(TENANT, "nobody")

    assert at_stripe("/v1/customers")["data"] == []


def test_a_new_card_makes_what_waited_for_one_due_at_once() -> None:
    (payment_id,) = owing(card=None)
    assert taken(payment_id) == PaymentState.NEEDS_PAYMENT_METHOD

    moment = now()
    attach(at=moment)

    assert payment(payment_id, "state, due_at") == (PaymentState.RETRY_SCHEDULED, moment)
    assert taken(payment_id) == PaymentState.SUCCEEDED


def test_the_same_card_again_does_not_try_at_once_what_it_declined() -> None:
    (payment_id,) = owing(card=None)
    card = attach("pm_card_chargeCustomerFail")
    taken(payment_id)
    before = payment(payment_id)

    attach(card)

    assert payment(payment_id) == before


def test_a_setup_in_the_browser_brings_the_card_to_pay_with(delivering: DoubleControl, ana: str) -> None:
    begun = cards.start_setup(TENANT, ana, gateway(), now())
    shown = at_stripe(f"/v1/setup_intents/{begun.setup_intent_id}")
    card = at_stripe_confirm(begun.setup_intent_id, GOOD)
    delivering.wait_delivered()

    work_all()

    assert begun.client_secret is not None
    assert begun.client_secret.startswith(begun.setup_intent_id)
    assert begun.client_secret not in repr(begun)
    assert (shown["usage"], shown["payment_method_types"]) == ("off_session", ["card"])
    assert default() == card
    assert one("SELECT brand, last4 FROM payment_methods") == ("visa", "4242")


@pytest.mark.parametrize("order", ["type", "type DESC"])
def test_an_old_setup_never_takes_the_place_of_a_card_chosen_later(
    delivering: DoubleControl, ana: str, order: str
) -> None:
    begun = cards.start_setup(TENANT, ana, gateway(), now())
    at_stripe_confirm(begun.setup_intent_id, GOOD)
    chosen = attach(MASTERCARD, now() + timedelta(seconds=2))
    delivering.wait_delivered()

    work_all(order)

    assert default() == chosen
    assert len(cards.cards_of(TENANT, ana)) == 2


@pytest.mark.parametrize("order", ["type", "type DESC"])
def test_a_card_that_is_gone_is_not_paid_with_in_whatever_order_it_is_told(
    delivering: DoubleControl, ana: str, order: str
) -> None:
    card = attach()
    gateway().detach_payment_method(card)
    delivering.wait_delivered()

    work_all(order)

    assert default() is None
    assert [known.detached_at is not None for known in cards.cards_of(TENANT, ana)] == [True]


def test_a_card_attached_at_stripe_is_paid_with_only_by_who_has_none(delivering: DoubleControl, ana: str) -> None:
    cards.start_setup(TENANT, ana, gateway(), now())
    (stripe_customer,) = one("SELECT stripe_customer_id FROM customers")
    first = gateway().attach_payment_method(stripe_customer, GOOD)
    delivering.wait_delivered()
    work_all()
    gateway().attach_payment_method(stripe_customer, MASTERCARD)
    delivering.wait_delivered()

    work_all()

    assert default() == first
    assert len(cards.cards_of(TENANT, ana)) == 2


def test_a_strangers_card_is_not_kept(delivering: DoubleControl, ana: str) -> None:
    stranger = gateway().create_customer("Bia", {}, "bia")
    gateway().attach_payment_method(stranger, GOOD)
    delivering.wait_delivered()

    assert "ignored: no customer of ours" in work_all()
    assert cards.cards_of(TENANT, ana) == []


@pytest.mark.parametrize("order", ["type", "type DESC"])
def test_a_card_that_the_bank_renewed_may_be_tried_again(delivering: DoubleControl, order: str) -> None:
    """Worked in either order, the event of its attaching finds it renewed already, or the other does."""
    (payment_id,) = owing(card=None)
    card = attach()
    one("UPDATE payments SET state = 'needs_payment_method', due_at = NULL RETURNING 1")
    one("UPDATE payment_methods SET held_at = now(), hold_reason = 'expired_card' RETURNING 1")
    delivering.update_card(card, 12, 2040)
    delivering.wait_delivered()

    work_all(order)

    (known,) = cards.cards_of(TENANT, "ana")
    assert (known.exp_month, known.exp_year, known.hold_reason) == (12, 2040, None)
    assert payment(payment_id, "state")[0] == PaymentState.RETRY_SCHEDULED
    assert taken(payment_id) == PaymentState.SUCCEEDED


def test_a_person_may_take_a_card_away(ana: str) -> None:
    card = attach()

    cards.detach(TENANT, ana, card, gateway(), now())
    cards.detach(TENANT, ana, card, gateway(), now())

    assert default() is None
    assert gateway().retrieve_payment_method(card).stripe_customer_id is None


def test_nobody_takes_away_anothers_card(ana: str) -> None:
    card = attach()
    a_customer("bia")

    with pytest.raises(CardNotFound):
        cards.detach(TENANT, "bia", card, gateway(), now())

    assert default() == card
