"""What a person who looks after payments sees and says: lists, alerts, and who is held."""

from collections.abc import Sequence
from datetime import datetime
from uuid import UUID

from billing.errors import CursorMalformed, CustomerNotFound, PaymentNotFound, TenantNotFound
from billing.payments import HoldReason, PaymentKind, PaymentState
from config.logging import logger
from db import alerts as alert_rows
from db import collecting, customers
from db import overview as rows
from db import payments as payment_rows
from db.alerts import AlertRow
from db.overview import ListedPayment
from db.session import Connection, in_transaction
from services.cursors import after, cursor
from services.desk.history import PAGE, Page, check_rows

log = logger(__name__)


def payments(
    tenant_id: str | None, customer_id: str | None, state: PaymentState | None, limit: int
) -> list[ListedPayment]:
    """Payments, newest first; of one tenant, customer or state if told."""
    return in_transaction(lambda connection: rows.payments(connection, tenant_id, customer_id, state, limit))


def payment_page(
    tenant_id: str,
    customer_id: str | None = None,
    state: PaymentState | None = None,
    kind: PaymentKind | None = None,
    *,
    limit: int = PAGE,
    at: str | None = None,
) -> Page[ListedPayment]:
    """A page of a tenant's payments, newest first. Raises `TenantNotFound`, `CursorMalformed`, `Rejected`."""
    check_rows(limit)
    filters = {"tenant_id": tenant_id, "customer_id": customer_id, "state": state, "kind": kind}
    question = ("payments", *filters.values())
    place = _place(at, question) if at is not None else None

    def work(connection: Connection) -> list[ListedPayment]:
        if not customers.existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        return rows.page(connection, filters, limit + 1, place)

    found = in_transaction(work)
    last = found[limit - 1] if len(found) > limit else None
    more = cursor(question, (last.created_at, str(last.payment_id))) if last is not None else None
    return Page(tuple(found[:limit]), more)


def payment(tenant_id: str, payment_id: UUID) -> ListedPayment:
    """One payment of a tenant. Raises `PaymentNotFound`."""
    found = in_transaction(lambda connection: rows.payment(connection, tenant_id, payment_id))
    if found is None:
        raise PaymentNotFound(payment_id=str(payment_id))
    return found


def named(text: str) -> tuple[str, UUID]:
    """The (tenant, payment) that a person means by a payment's id, or its PaymentIntent's. Raises `PaymentNotFound`."""
    found = in_transaction(lambda connection: _named(connection, text))
    if found is None:
        raise PaymentNotFound("there is no such payment; `centavo payments list` shows what there is", payment=text)
    return found


def alerts(tenant_id: str, limit: int) -> list[AlertRow]:
    """A tenant's alerts that nobody has seen, newest first."""
    return in_transaction(lambda connection: alert_rows.unseen(connection, tenant_id, limit))


def see(tenant_id: str, alert_ids: list[int], now: datetime) -> int:
    """A person has seen these alerts: what they are about is said anew should it come again; how many were unseen."""
    return in_transaction(lambda connection: alert_rows.see(connection, tenant_id, alert_ids, now))


def hold(tenant_id: str, customer_id: str, why: str, now: datetime) -> None:
    """Collect nothing more from a customer by itself, until a person lets go. Raises `CustomerNotFound`."""

    def work(connection: Connection) -> None:
        _require(connection, tenant_id, customer_id)
        collecting.hold(connection, tenant_id, customer_id, HoldReason.BY_HAND, why, now)

    in_transaction(work)
    log.info("customer held", tenant_id=tenant_id, customer_id=customer_id, why=why)


def release(tenant_id: str, customer_id: str, reason: HoldReason | None) -> list[str]:
    """Collect from a customer again; for which reasons they were held, of all or of the one told.

    Raises `CustomerNotFound`. What waits for a card goes on waiting for it.
    """

    def work(connection: Connection) -> list[str]:
        _require(connection, tenant_id, customer_id)
        standing = collecting.holds(connection, tenant_id, customer_id)
        ended = [one for one in standing if reason in {None, one}]
        collecting.release(connection, tenant_id, customer_id, ended)
        return ended

    ended = in_transaction(work)
    log.info("customer released", tenant_id=tenant_id, customer_id=customer_id, reasons=ended)
    return ended


def _place(at: str, question: Sequence[object]) -> tuple[datetime, UUID]:
    moment, payment_id = after(at, question, (datetime, str))
    try:
        return moment, UUID(payment_id)
    except ValueError as error:
        raise CursorMalformed from error


def _named(connection: Connection, text: str) -> tuple[str, UUID] | None:
    if text.startswith("pi_"):
        return payment_rows.find_by_intent(connection, text)
    try:
        payment_id = UUID(text)
    except ValueError:
        return None
    tenant_id = payment_rows.find_by_id(connection, payment_id)
    return (tenant_id, payment_id) if tenant_id else None


def _require(connection: Connection, tenant_id: str, customer_id: str) -> None:
    if customers.find_customer(connection, tenant_id, customer_id) is None:
        raise CustomerNotFound(tenant_id=tenant_id, customer_id=customer_id)
