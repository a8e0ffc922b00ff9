"""Cards: attaching one, taking one from the customer's browser, and what Stripe tells about them.

No number is ever here: a card is Stripe's id, its brand, its last four digits and its expiry. A card that becomes
the one a customer pays with re-opens what waited for it; a card that was chosen earlier never takes its place.
"""

from collections.abc import Callable
from datetime import datetime
from uuid import uuid5

from billing.errors import CustomerNotFound, NotFound, Rejected
from config.logging import logger
from config.settings import settings
from db import cards as rows
from db import customers as customer_rows
from db.cards import CardRow, Face
from db.session import Connection, in_transaction
from payments.gateway import CardSnapshot, PaymentGateway, SetupIntentSnapshot
from services.collecting import holds

log = logger(__name__)

#: In the metadata of a customer at Stripe: installation, tenant and customer in one word.
OUR_ID = "centavo_id"


class CardNotFound(NotFound):
    """The customer has no such card; `centavo cards list` shows those there are."""

    code = "unknown_card"


def attach(
    tenant_id: str,
    customer_id: str,
    payment_method: str,
    gateway: PaymentGateway,
    now: datetime,
    *,
    name: str | None = None,
) -> str:
    """Give a customer a card to pay with from now on, and make them a customer at Stripe first; the card's id there.

    Stripe is called between transactions, never inside one; whoever repeats it after a crash repairs it. Raises
    `CustomerNotFound` and the gateway's errors; a card that is refused changes nothing.
    """
    stripe_customer_id = _at_stripe(tenant_id, customer_id, gateway, name)
    card_id = gateway.attach_payment_method(stripe_customer_id, payment_method)
    card = gateway.retrieve_payment_method(card_id)

    in_transaction(lambda connection: _take(connection, tenant_id, customer_id, card, now, now))
    log.info("card attached", tenant_id=tenant_id, customer_id=customer_id, payment_method=card_id)
    return card_id


def choose(tenant_id: str, customer_id: str, payment_method_id: str, now: datetime) -> None:
    """Let a customer pay with another of the cards that they have. What waited for a card is re-opened.

    Raises `CardNotFound`, `Rejected` (the card is not tried any more).
    """

    def work(connection: Connection) -> None:
        rows.lock_customer(connection, tenant_id, customer_id)
        known = rows.find(connection, payment_method_id)
        if known is None or (known.tenant_id, known.customer_id) != (tenant_id, customer_id) or known.detached_at:
            raise CardNotFound(customer_id=customer_id, payment_method=payment_method_id)
        if known.hold_reason:
            raise Rejected("this card is not tried any more; give another one", reason=known.hold_reason)
        face = Face(known.brand, known.last4, known.exp_month, known.exp_year)
        rows.save(connection, tenant_id, customer_id, payment_method_id, face, now)
        if rows.make_default(connection, tenant_id, customer_id, payment_method_id, now):
            holds.new_card(connection, tenant_id, customer_id, now)

    in_transaction(work)
    log.info("card chosen", tenant_id=tenant_id, customer_id=customer_id, payment_method=payment_method_id)


def start_setup(tenant_id: str, customer_id: str, gateway: PaymentGateway, now: datetime) -> SetupIntentSnapshot:
    """Begin to take a card in the customer's browser, for charges while they are away.

    The browser confirms it with the client secret; Stripe's webhook brings it to `completed_setup`. Raises
    `CustomerNotFound` and the gateway's errors.
    """
    stripe_customer_id = _at_stripe(tenant_id, customer_id, gateway)
    key = _key("setup", tenant_id, customer_id, now.isoformat())
    metadata = _metadata(tenant_id, customer_id) | {"environment": settings().environment}
    return gateway.create_setup_intent(stripe_customer_id, metadata, key)


def completed_setup(setup_intent_id: str, chosen_at: datetime, gateway: PaymentGateway, now: datetime) -> str:
    """A customer has given a card: they pay with it, unless they chose another later. What came of it, in words."""
    setup = gateway.retrieve_setup_intent(setup_intent_id)
    if setup.status != "succeeded" or setup.payment_method_id is None:
        return f"ignored: the setup intent is {setup.status}"
    return _told(setup.payment_method_id, gateway, lambda c, t, who, card: _take(c, t, who, card, chosen_at, now))


def attached(payment_method_id: str, attached_at: datetime, gateway: PaymentGateway, now: datetime) -> str:
    """A customer has a card more. Only who had none pays with it: nobody said that it should take another's place."""

    def work(connection: Connection, tenant_id: str, customer_id: str, card: CardSnapshot) -> None:
        is_renewed = _keep(connection, tenant_id, customer_id, card, attached_at)
        is_first = rows.make_first_default(connection, tenant_id, customer_id, card.payment_method_id)
        if is_first or is_renewed:
            holds.new_card(connection, tenant_id, customer_id, now)

    return _told(payment_method_id, gateway, work)


def updated(payment_method_id: str, updated_at: datetime, gateway: PaymentGateway, now: datetime) -> str:
    """The bank has renewed a card: it may be tried again, as a new one may."""

    def work(connection: Connection, tenant_id: str, customer_id: str, card: CardSnapshot) -> None:
        known = rows.find(connection, card.payment_method_id)
        # Renewed is not chosen: the place that it has among the customer's cards stays.
        if _keep(connection, tenant_id, customer_id, card, known.attached_at if known else updated_at):
            holds.new_card(connection, tenant_id, customer_id, now)

    return _told(payment_method_id, gateway, work)


def detach(tenant_id: str, customer_id: str, payment_method_id: str, gateway: PaymentGateway, now: datetime) -> None:
    """Take a card from a customer, at Stripe first. Raises `CardNotFound` and the gateway's errors."""
    known = in_transaction(lambda connection: rows.find(connection, payment_method_id))
    if known is None or (known.tenant_id, known.customer_id) != (tenant_id, customer_id):
        raise CardNotFound(customer_id=customer_id, payment_method=payment_method_id)
    gateway.detach_payment_method(payment_method_id)
    detached(payment_method_id, now)


def detached(payment_method_id: str, now: datetime) -> str:
    """A customer has a card no more; for good, since Stripe attaches none a second time. What came of it, in words."""

    def work(connection: Connection) -> str:
        known = rows.find(connection, payment_method_id)
        if known is None:
            return "ignored: no card of ours"
        rows.lock_customer(connection, known.tenant_id, known.customer_id)
        rows.detach(connection, known.tenant_id, known.customer_id, payment_method_id, now)
        return f"the card of {known.customer_id} is gone"

    return in_transaction(work)


def cards_of(tenant_id: str, customer_id: str) -> list[CardRow]:
    """A customer's cards, the latest first. Raises `CustomerNotFound`."""

    def work(connection: Connection) -> list[CardRow] | None:
        if customer_rows.find_customer(connection, tenant_id, customer_id) is None:
            return None
        return rows.of_customer(connection, tenant_id, customer_id)

    found = in_transaction(work)
    if found is None:
        raise CustomerNotFound(tenant_id=tenant_id, customer_id=customer_id)
    return found


def _told(
    payment_method_id: str,
    gateway: PaymentGateway,
    work: Callable[[Connection, str, str, CardSnapshot], None],
) -> str:
    """Look at a card as it stands, find whose it is, and do what is to be done; in words what came of it."""
    card = gateway.retrieve_payment_method(payment_method_id)
    if card.stripe_customer_id is None:
        return "ignored: the card is attached to nobody now"
    if card.brand is None:
        return "ignored: the payment method is no card"
    stripe_customer_id = card.stripe_customer_id

    def found(connection: Connection) -> str:
        owner = rows.find_customer(connection, stripe_customer_id)
        if owner is None:
            return "ignored: no customer of ours"
        work(connection, *owner, card)
        return f"the card of {owner[1]} is as Stripe has it"

    return in_transaction(found)


def _take(
    connection: Connection,
    tenant_id: str,
    customer_id: str,
    card: CardSnapshot,
    chosen_at: datetime,
    now: datetime,
) -> None:
    """Keep a card that a customer chose at that time, and let them pay with it; only a change re-opens payments.

    The same card again must not: what it declined would be tried at once, outside the schedule.
    """
    is_renewed = _keep(connection, tenant_id, customer_id, card, chosen_at)
    is_new = rows.make_default(connection, tenant_id, customer_id, card.payment_method_id, chosen_at)
    if is_new or is_renewed:
        holds.new_card(connection, tenant_id, customer_id, now)


def _keep(connection: Connection, tenant_id: str, customer_id: str, card: CardSnapshot, attached_at: datetime) -> bool:
    """Keep a card as Stripe has it; whether the customer pays with it and the bank has renewed it.

    Whichever event is worked first finds the card as it is now, so each of them must see what is new about it.
    """
    rows.lock_customer(connection, tenant_id, customer_id)
    face = Face(card.brand, card.last4, card.exp_month, card.exp_year)
    is_renewed = rows.renew(connection, tenant_id, card.payment_method_id, face)
    rows.save(connection, tenant_id, customer_id, card.payment_method_id, face, attached_at)
    known = rows.find(connection, card.payment_method_id)
    return is_renewed and known is not None and known.is_default


def _at_stripe(tenant_id: str, customer_id: str, gateway: PaymentGateway, name: str | None = None) -> str:
    """A customer's id at Stripe, made and committed if there is none."""
    customer = in_transaction(lambda connection: customer_rows.find_customer(connection, tenant_id, customer_id))
    if customer is None:
        raise CustomerNotFound(tenant_id=tenant_id, customer_id=customer_id)
    if customer.stripe_customer_id is not None:
        return customer.stripe_customer_id
    made = _known_at_stripe(tenant_id, customer_id, gateway) or gateway.create_customer(
        name or customer_id, _metadata(tenant_id, customer_id), _key("customer", tenant_id, customer_id)
    )
    return in_transaction(lambda connection: rows.set_stripe_customer(connection, tenant_id, customer_id, made))


def _known_at_stripe(tenant_id: str, customer_id: str, gateway: PaymentGateway) -> str | None:
    """The customer that Stripe has of before the database was put back, with all that they have paid.

    Stripe's search is a minute behind, and its memory of keys lasts a day: between them they find every one.
    """
    return gateway.find_customer((OUR_ID, _our_id(tenant_id, customer_id)))


def _metadata(tenant_id: str, customer_id: str) -> dict[str, str]:
    """By which a person at Stripe recognises a customer of ours."""
    installation = in_transaction(customer_rows.installation_id)
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "installation": str(installation)}
    return said | {OUR_ID: _our_id(tenant_id, customer_id)}


def _key(kind: str, *names: str) -> str:
    return f"{kind}:{_our_id(*names)}"


def _our_id(*names: str) -> str:
    """An id for names, which may hold what no header and no query can, or be longer than a key may be."""
    return str(uuid5(in_transaction(customer_rows.installation_id), chr(0).join(names)))
