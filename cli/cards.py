"""Customers' cards."""

from typing import Annotated

import typer

from cli.catalogue import CustomerId, TenantId
from cli.show import NOTHING, AsJson, a_table, as_json, console, plain
from config import clock
from db.cards import CardRow
from services.collecting import cards
from services.collecting.gateways import gateway

app = typer.Typer(help="With what customers pay.", no_args_is_help=True)

PaymentMethod = Annotated[str, typer.Argument(help="Stripe's payment method id (pm_…).")]


@app.command()
def attach(tenant_id: TenantId, customer_id: CustomerId, payment_method: PaymentMethod) -> None:
    """Give a customer a card to pay with from now on."""
    card = cards.attach(tenant_id, customer_id, payment_method, gateway(), clock.now())
    console.print(f"customer {plain(customer_id)} pays with {plain(card)} from now on")


@app.command("default")
def choose(tenant_id: TenantId, customer_id: CustomerId, payment_method: PaymentMethod) -> None:
    """Let a customer pay with another of the cards that they have."""
    cards.choose(tenant_id, customer_id, payment_method, clock.now())
    console.print(f"customer {plain(customer_id)} pays with {plain(payment_method)} from now on")


@app.command()
def detach(tenant_id: TenantId, customer_id: CustomerId, payment_method: PaymentMethod) -> None:
    """Take a card from a customer, for good."""
    cards.detach(tenant_id, customer_id, payment_method, gateway(), clock.now())
    console.print(f"customer {plain(customer_id)} has the card {plain(payment_method)} no more")


@app.command()
def setup(tenant_id: TenantId, customer_id: CustomerId, json: AsJson = False) -> None:
    """Begin to take a card in the customer's browser, for charges while they are away."""
    begun = cards.start_setup(tenant_id, customer_id, gateway(), clock.now())
    if json:
        as_json({"setup_intent_id": begun.setup_intent_id, "client_secret": begun.client_secret})
        return
    console.print(f"setup intent {plain(begun.setup_intent_id)}; the browser confirms it with this client secret:")
    console.print(plain(begun.client_secret))


@app.command("list")
def list_(tenant_id: TenantId, customer_id: CustomerId, json: AsJson = False) -> None:
    """A customer's cards, the latest first."""
    found = cards.cards_of(tenant_id, customer_id)
    if json:
        as_json([card._asdict() for card in found])
        return
    if not found:
        console.print("there is no card; `centavo cards attach` or `centavo cards setup` brings one")
        return
    table = a_table("card", "brand", "ends with", "expires", "state", whole=("card",))
    for card in found:
        expires = f"{card.exp_month:02}/{card.exp_year}" if card.exp_month and card.exp_year else NOTHING
        table.add_row(plain(card.payment_method_id), plain(card.brand), plain(card.last4), expires, _state(card))
    console.print(table)


def _state(card: CardRow) -> str:
    if card.detached_at:
        return "gone"
    said = ["pays"] if card.is_default else []
    if card.hold_reason:
        said.append(f"not tried any more: {plain(card.hold_reason)}")
    return ", ".join(said) or NOTHING
