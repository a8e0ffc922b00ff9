"""Why a payment is where it is: everything that is written down about it."""

from typing import Any
from uuid import UUID

from billing.errors import PaymentNotFound
from db import explain as rows
from db import payments as payment_rows
from db.session import Connection, in_transaction
from payments.classify import told_to_customer


def explain_payment(named: str) -> dict[str, Any]:
    """All about a payment, by its id or its PaymentIntent's (`pi_…`).

    The payment, what the customer may be told of a decline, the customer with what holds them back, the period and
    the event that made it fall due, each attempt with key and answer, each move with its reason, webhooks, refunds,
    disputes, ledger entries. Raises `PaymentNotFound`.
    """
    return in_transaction(lambda connection: _explained(connection, named))


def _explained(connection: Connection, named: str) -> dict[str, Any]:
    payment_id = _payment_id(connection, named)
    payment = rows.payment(connection, payment_id) if payment_id else None
    if payment is None or payment_id is None:
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
