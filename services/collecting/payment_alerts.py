"""Telling a tenant that money did not come in: in the transaction that writes it down, once for each attempt."""

from datetime import datetime

from billing.affordability import FAILED
from billing.money import in_minor_units
from billing.payments import AlertKind
from db.alerts import raise_alert
from db.payments import Move, PaymentRow
from db.session import Connection


def tell(connection: Connection, payment: PaymentRow, move: Move, now: datetime) -> None:
    """Say where a payment goes that was not collected: it is tried again, or given up until somebody does something.

    The caller holds the payment, and has written the move.
    """
    kind = AlertKind.PAYMENT_GIVEN_UP if move.state in FAILED else AlertKind.PAYMENT_FAILED
    amount = in_minor_units(payment.amount_minor, payment.currency)
    what = f"{payment.kind} {payment.tier}" if payment.tier else payment.kind
    again = f"; it is tried again at {move.due_at.isoformat()}" if move.due_at else ""
    detail = f"{amount} of customer {payment.customer_id} ({what}) did not come in: {move.why}{again}"
    about = f"{payment.payment_id} attempt {payment.attempts_made}"
    raise_alert(connection, payment.tenant_id, kind, about, detail, now, customer_id=payment.customer_id)
