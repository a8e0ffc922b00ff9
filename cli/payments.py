"""Looking after payments: `payments …` and `alerts …`."""

from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer

from billing.currencies import in_minor, places
from billing.errors import Rejected
from billing.money import in_minor_units, written
from billing.payments import HoldReason, PaymentState, RefundState
from cli.catalogue import CustomerId, TenantId
from cli.show import NOTHING, AsJson, a_table, as_json, console, plain
from config import clock
from db.overview import ListedPayment
from services.collecting import guards, refunds, topups, voiding, webhooks
from services.collecting.gateways import gateway
from services.collecting.topups import Offer
from services.desk import overview
from services.desk.explain import explain_payment

payments = typer.Typer(help="Money to collect, and to give back.", no_args_is_help=True)
explanations = typer.Typer(help="Why something is as it is.", no_args_is_help=True)
alerts = typer.Typer(help="What a person should look at.", no_args_is_help=True)

PaymentId = Annotated[str, typer.Argument(help="A payment's id, or its PaymentIntent's (pi_…).")]
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="How many at most.")]
Key = Annotated[str, typer.Option(help="An idempotency key: the same key does it once.")]
Wallet = Annotated[str, typer.Option(help="Of which wallet.")]
PaidIn = Annotated[str, typer.Option(help="In which currency it is paid.")]


@payments.command("list")
def list_payments(
    tenant: Annotated[str | None, typer.Option(help="Of this tenant alone.")] = None,
    customer: Annotated[str | None, typer.Option(help="Of this customer alone.")] = None,
    state: Annotated[PaymentState | None, typer.Option(help="In this state alone.", metavar="STATE")] = None,
    limit: Limit = 50,
    json: AsJson = False,
) -> None:
    """Payments, newest first."""
    found = overview.payments(tenant, customer, state, limit)
    if json:
        as_json([row._asdict() for row in found])
        return
    table = a_table("payment", "customer", "what", "amount", "state", numbers=("amount",), whole=("payment", "amount"))
    for row in found:
        amount = in_minor_units(row.amount_minor, row.currency)
        table.add_row(str(row.payment_id), plain(row.customer_id), _what(row), amount, row.state)
    console.print(table if found else "there are no such payments")
    if len(found) == limit:
        console.print(f"these are the newest {limit}; --limit shows more")
    _say_paused()


@payments.command()
def show(payment: PaymentId, json: AsJson = False) -> None:
    """One payment, and what became of it."""
    told = explain_payment(payment)
    row = told["payment"]
    if json:
        as_json(row)
        return
    table = a_table("", "")
    table.show_header = False
    for name, value in _facts(told).items():
        table.add_row(name, plain(value))
    console.print(table)


@explanations.command("payment")
@payments.command()
def explain(payment: PaymentId, json: AsJson = False) -> None:
    """Why a payment is where it is: every attempt, answer, webhook and decision, in the order of time."""
    told = explain_payment(payment)
    if json:
        as_json(told)
        return
    row = told["payment"]
    console.print(
        f"payment {row['payment_id']}: {in_minor_units(row['amount_minor'], row['currency'])}", soft_wrap=True
    )
    for at, who, what in sorted(_story(told), key=lambda line: line[0]):
        console.print(f"{at:%Y-%m-%d %H:%M:%S}  {who:<10}  {plain(what)}", soft_wrap=True)
    held = told["customer"]["holds"]
    if may_be_told := told["customer_may_be_told"]:
        console.print(f"the customer may be told: {may_be_told}")
    console.print(f"it is {row['state']}" + (f"; customer held: {', '.join(held)}" if held else ""), style="bold")
    _say_paused()


@payments.command()
def approve(payment: PaymentId) -> None:
    """Let a payment through that is above a cap."""
    tenant_id, payment_id = overview.named(payment)
    guards.approve(tenant_id, payment_id, clock.now())
    console.print(f"payment {payment_id} is approved", soft_wrap=True)


@payments.command()
def pause(reason: Annotated[str, typer.Option(help="Why, for whoever finds it paused.")]) -> None:
    """Collect nothing more, of anybody, until `payments resume`."""
    guards.pause(reason, clock.now())
    console.print("collecting is paused; `centavo payments resume` lets it go on")


@payments.command()
def resume() -> None:
    """Collect again."""
    guards.resume()
    console.print("collecting goes on")


@payments.command("catch-up")
def catch_up() -> None:
    """Fetch all that Stripe has said in thirty days, after the database was put back; workers do the rest."""
    fetched = webhooks.look_for_missed(gateway(), clock.now(), is_everything=True)
    console.print(f"{fetched} events that were not known here; `centavo alerts list` shows what can't be worked")


@payments.command()
def void(payment: PaymentId, reason: Annotated[str, typer.Option(help="Why.")]) -> None:
    """Collect a payment no more."""
    tenant_id, payment_id = overview.named(payment)
    state = voiding.void(tenant_id, payment_id, reason, clock.now())
    if state is PaymentState.VOIDED:
        console.print(f"payment {payment_id} is voided", soft_wrap=True)
    else:
        said = f"payment {payment_id} is {state}; it is canceled at Stripe next, or given back if the money has moved"
        console.print(said, soft_wrap=True)


@payments.command()
def refund(
    payment: PaymentId,
    amount: Annotated[str | None, typer.Argument(help="How much, such as 40.00; all that is left if not told.")] = None,
    *,
    key: Key,
    reason: Annotated[str, typer.Option(help="Why.")] = "requested_by_customer",
) -> None:
    """Give a payment back, in full or in part, once per key."""
    way = gateway()
    tenant_id, payment_id = overview.named(payment)
    currency = overview.payment(tenant_id, payment_id).currency
    amount_minor = _minor(amount, currency) if amount else None
    asked = refunds.refund(tenant_id, payment_id, amount_minor, reason, key, clock.now())
    state = refunds.carry_out(tenant_id, asked.refund_id, way, clock.now()) or RefundState.SUBMITTING
    said = f"{in_minor_units(asked.amount_minor, asked.currency)} of payment {payment_id}"
    match state:
        case RefundState.SUCCEEDED:
            console.print(f"{said} went back", soft_wrap=True)
        case RefundState.PENDING:
            console.print(f"{said} is on its way back; the bank takes a while", soft_wrap=True)
        case RefundState.SUBMITTING:
            console.print(f"{said} goes back as soon as Stripe answers; nothing more is to be done", soft_wrap=True)
        case _:
            raise Rejected(f"{said} did not go back; `centavo alerts list {tenant_id}` says why")


@payments.command()
def hold(tenant_id: TenantId, customer_id: CustomerId, reason: Annotated[str, typer.Option(help="Why.")]) -> None:
    """Collect nothing more from a customer, until `payments release`."""
    overview.hold(tenant_id, customer_id, reason, clock.now())
    console.print(f"customer {plain(customer_id)} is held")


@payments.command()
def release(
    tenant_id: TenantId,
    customer_id: CustomerId,
    reason: Annotated[HoldReason | None, typer.Option(help="Of this hold alone.", metavar="REASON")] = None,
) -> None:
    """Collect from a customer again who was held: after declines, for a dispute, by hand."""
    ended = overview.release(tenant_id, customer_id, reason)
    name = plain(customer_id)
    console.print(f"customer {name} is held no more: {', '.join(ended)}" if ended else f"customer {name} was not held")


@payments.command("top-up")
def top_up(
    tenant_id: TenantId,
    customer_id: CustomerId,
    value: Annotated[str, typer.Argument(help="What the wallet gets, such as 50.")],
    price: Annotated[str, typer.Argument(help="What is paid for it, such as 250.00.")],
    *,
    key: Key,
    wallet: Wallet = "USD",
    currency: PaidIn = "BRL",
) -> None:
    """Let a customer buy value, once per key; the wallet gets it when the payment has come in."""
    offer = Offer(_decimal(value), _minor(price, currency), currency)
    asked = topups.request(tenant_id, customer_id, wallet, offer, key, clock.now())
    bought = f"{wallet} {written(asked.credit_amount)} for {in_minor_units(asked.amount_minor, asked.currency)}"
    how = "is due" if asked.is_new else f"was asked for under this key before, and is {asked.state}"
    console.print(f"payment {asked.payment_id} {how}: {bought}", soft_wrap=True)


@payments.command("top-up-rule")
def top_up_rule(
    tenant_id: TenantId,
    customer_id: CustomerId,
    *,
    below: Annotated[str, typer.Option(help="When the wallet has less than this, such as 10.")],
    value: Annotated[str, typer.Option(help="What the wallet gets, such as 50.")],
    price: Annotated[str, typer.Option(help="What is paid for it, such as 250.00.")],
    cap: Annotated[str, typer.Option(help="What may be paid so in a month, such as 1000.00.")],
    wallet: Wallet = "USD",
    currency: PaidIn = "BRL",
    off: Annotated[bool, typer.Option("--off", help="Keep the rule, and do not follow it.")] = False,
) -> None:
    """Let a wallet top itself up when it is low."""
    offer, cap_minor = Offer(_decimal(value), _minor(price, currency), currency), _minor(cap, currency)
    topups.set_rule(tenant_id, customer_id, wallet, _decimal(below), offer, cap_minor, clock.now(), is_active=not off)
    what = f"{wallet} {value} for {in_minor_units(offer.amount_minor, currency)}"
    until = in_minor_units(cap_minor, currency)
    console.print("the rule is off" if off else f"below {wallet} {below} it buys {what}, up to {until} a month")


@alerts.command("list")
def list_alerts(tenant_id: TenantId, limit: Limit = 50, json: AsJson = False) -> None:
    """What nobody has seen yet, newest first."""
    found = overview.alerts(tenant_id, limit)
    if json:
        as_json([row._asdict() for row in found])
        return
    for row in found:
        times = f", {row.times} times" if row.times > 1 else ""
        customer = f", customer {plain(row.customer_id)}" if row.customer_id else ""
        console.print(f"{row.alert_id}  {row.kind}", style="bold", soft_wrap=True)
        console.print(f"  {plain(row.detail)}", soft_wrap=True)
        console.print(f"  last {row.last_at:%Y-%m-%d %H:%M} UTC{times}{customer}", soft_wrap=True)
    if not found:
        console.print("there is nothing to look at")


@alerts.command()
def see(
    tenant_id: TenantId, alert: Annotated[list[int], typer.Argument(help="Numbers from `centavo alerts list`.")]
) -> None:
    """You have seen these; the same is said anew should it come again."""
    console.print(f"{overview.see(tenant_id, alert, clock.now())} seen")


def _what(row: ListedPayment) -> str:
    return f"tier {row.tier}" if row.tier else row.kind.replace("_", "-")


def _facts(told: dict[str, Any]) -> dict[str, str]:
    row, currency = told["payment"], told["payment"]["currency"]
    facts = {
        "payment": str(row["payment_id"]),
        "tenant": row["tenant_id"],
        "customer": row["customer_id"],
        "kind": f"tier {row['tier']}" if row["tier"] else row["kind"],
        "period from": _moment(row["period_start"]),
        "amount": in_minor_units(row["amount_minor"], currency),
        "state": row["state"],
        "due": _moment(row["due_at"]),
        "PaymentIntent": row["stripe_payment_intent_id"] or NOTHING,
        "attempts": str(row["attempts_made"]),
        "last decline": row["last_decline_code"] or NOTHING,
        "refunded": in_minor_units(row["refunded_minor"], currency),
        "held for": ", ".join(told["customer"]["holds"]) or NOTHING,
    }
    if row["unowed_at"] is not None:
        facts["owed no longer since"] = _moment(row["unowed_at"])
    if row["credit_amount"] is not None:
        facts["value bought"] = written(row["credit_amount"])
        facts["value given"] = written(row["credit_given"])
    return facts


def _story(told: dict[str, Any]) -> Iterator[tuple[datetime, str, str]]:
    """(when, who, what) of everything that is known, in no order."""
    currency = told["payment"]["currency"]
    for one in told["log"]:
        yield one["at"], one["source"], f"{one['to_state']}: {one['why']}{_crossing(one['detail'] or {})}"
    for one in told["attempts"]:
        yield one["started_at"], "attempt", f"{one['attempt']} with key {one['idempotency_key']}"
        if one["finished_at"]:
            yield one["finished_at"], "attempt", f"{one['attempt']} {one['state']} ({one['charge_id'] or NOTHING})"
    for one in told["webhooks"]:
        yield one["received_at"], "webhook", f"{one['type']} {one['event_id']}: {one['outcome'] or NOTHING}"
    for one in told["refunds"]:
        what = f"{in_minor_units(one['amount_minor'], currency)} ({one['reason']}) is {one['state']}"
        yield one["created_at"], "refund", f"{what}: {one['stripe_refund_id'] or one['failure'] or NOTHING}"
    for one in told["disputes"]:
        amount = in_minor_units(one["amount_minor"], currency)
        yield one["opened_at"], "dispute", f"{one['stripe_dispute_id']} over {amount} is {one['status']}"
    for one in told["entries"]:
        yield one["recorded_at"], "wallet", f"{one['kind']} {written(one['amount'])}"


def _crossing(detail: Mapping[str, Any]) -> str:
    """The event whose tokens began a tier."""
    if "event_key" not in detail:
        return ""
    before, after = detail["tokens_before"], detail["tokens_after"]
    return f", by event {detail['event_key']} ({before:,} to {after:,} tokens)"


def _say_paused() -> None:
    switch = guards.switch()
    if switch.paused_at is not None:
        said = f"collecting is paused since {_moment(switch.paused_at)}: {plain(switch.reason)}"
        console.print(said, style="red", soft_wrap=True)


def _moment(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC" if at else NOTHING


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text)
    except InvalidOperation:
        raise Rejected(f"{text!r} is not an amount; write it like 100 or 0.05") from None


def _minor(text: str, currency: str) -> int:
    """An amount of money as people write it, in minor units."""
    minor = in_minor(_decimal(text), currency)
    if minor is None:
        how = {0: "without decimal places, such as 4000", 2: "with two decimal places at most, such as 40.00"}
        said = how.get(places(currency), f"with {places(currency)} decimal places at most")
        raise Rejected(f"{text!r} can't be paid in {currency}: write it {said}")
    return minor
