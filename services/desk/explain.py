"""Why an event cost what it did, and why a payment is where it is: everything that is written down about it."""

from dataclasses import asdict
from decimal import Decimal
from typing import Any
from uuid import UUID

from billing.errors import EventNotFound, PaymentNotFound
from billing.grants import DEBT
from billing.money import ZERO
from billing.quotes import GIVEN, is_of_plan, method_of_plan, method_of_value
from db import explain as rows
from db import payments as payment_rows
from db import recorded as recorded_rows
from db.session import Connection, in_transaction
from payments.classify import told_to_customer
from services.desk import trail


def explain_event(tenant_id: str, key: str) -> dict[str, Any]:
    """All about a usage event: its lines, the prices they were rated by, the entries and the grants that paid, what was
    corrected since, the period, the payments of tiers that it began, and what happened to it. Each line says how it was
    paid for (`method`). Raises `EventNotFound`.
    """

    def work(connection: Connection) -> dict[str, Any]:
        event = rows.event(connection, tenant_id, key)
        if event is None:
            raise EventNotFound(tenant_id=tenant_id, key=key)
        price_ids = {line["price_id"] for line in event["items"] or [] if line.get("price_id") is not None}
        about = rows.of_event(connection, tenant_id, key)
        period_of = (tenant_id, event["customer_id"], event["period_start"])
        is_counted = event["period_start"] is not None
        grants = rows.grants(connection, tenant_id, sorted(_grants_in(about["entries"])))
        caused = recorded_rows.caused(connection, *period_of, key) if is_counted else []
        if is_counted:
            _tell_methods(event, about["entries"], grants, begins_tier=bool(caused))
        return {
            "event": event,
            "prices": rows.prices(connection, sorted(price_ids)),
            **about,
            "grants": grants,
            "period": next(iter(rows.period(connection, *period_of)), None) if is_counted else None,
            "payments": [one._asdict() for one in caused],
            "trail": [asdict(one) for one in trail.read(connection, tenant_id, key)],
        }

    return in_transaction(work)


def _tell_methods(
    event: dict[str, Any], entries: list[dict[str, Any]], grants: list[dict[str, Any]], *, begins_tier: bool
) -> None:
    """Add to each line how it was paid for when it was charged: by the plan, or by what its wallet had."""
    given_ids = {str(one["grant_id"]) for one in grants if one["source"] in GIVEN}
    given = sum(
        (
            -amount
            for entry in entries
            if entry["kind"] == "usage"
            for name, amount in _parts_of(entry).items()
            if name in given_ids
        ),
        ZERO,
    )
    by_plan, by_value = method_of_plan(begins_tier=begins_tier), method_of_value(event["cost"], given)
    for line in event["items"] or []:
        is_covered = is_of_plan(line["unit"], is_priced=line.get("price_id") is not None)
        line["method"] = (by_plan if is_covered else by_value).value


def _parts_of(entry: dict[str, Any]) -> dict[str, Decimal]:
    """How much of each grant, and of debt, an entry moved."""
    if entry["parts"]:
        return {name: Decimal(str(amount)) for name, amount in entry["parts"].items()}
    return {DEBT if entry["grant_id"] is None else str(entry["grant_id"]): entry["amount"]}


def _grants_in(entries: list[dict[str, Any]]) -> set[str]:
    """Which grants these entries moved."""
    whole = {str(entry["grant_id"]) for entry in entries if entry["grant_id"] is not None}
    return whole | {name for entry in entries for name in entry["parts"] or {} if name != DEBT}


def explain_payment(named: str, tenant_id: str | None = None) -> dict[str, Any]:
    """All about a payment, by its id or its PaymentIntent's (`pi_…`); of this tenant alone, if told.

    The payment, what the customer may be told of a decline, the customer with what holds them back, the period and
    the event that made it fall due, each attempt with key and answer, each move with its reason, webhooks, refunds,
    disputes, ledger entries. Raises `PaymentNotFound`.
    """
    return in_transaction(lambda connection: _explained(connection, named, tenant_id))


def _explained(connection: Connection, named: str, only: str | None) -> dict[str, Any]:
    payment_id = _payment_id(connection, named)
    payment = rows.payment(connection, payment_id) if payment_id else None
    if payment is None or payment_id is None or only not in {None, payment["tenant_id"]}:
        raise PaymentNotFound(payment=named)
    tenant_id, customer_id = payment["tenant_id"], payment["customer_id"]
    declined = payment["last_decline_code"]
    return {
        "payment": payment,
        "customer_may_be_told": told_to_customer(declined) if declined else None,
        "customer": next(iter(rows.customer(connection, tenant_id, customer_id)), None),
        "period": next(iter(rows.period(connection, tenant_id, customer_id, payment["period_start"])), None),
        **rows.of_payment(connection, tenant_id, payment_id),
        "webhooks": rows.webhooks(connection, payment_id),
    }


def _payment_id(connection: Connection, named: str) -> UUID | None:
    if named.startswith("pi_"):
        found = payment_rows.find_by_intent(connection, named)
        return found[1] if found else None
    try:
        return UUID(named)
    except ValueError:
        return None
