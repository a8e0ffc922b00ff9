"""Customers' cards, as Stripe knows them."""

from datetime import datetime
from typing import Any, NamedTuple, cast

from db.session import Connection


class CardRow(NamedTuple):
    """A card of a customer. A `hold_reason` says that it is never to be tried again."""

    tenant_id: str
    payment_method_id: str
    customer_id: str
    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None
    attached_at: datetime
    detached_at: datetime | None
    hold_reason: str | None
    is_default: bool


class Face(NamedTuple):
    """What a person sees of a card."""

    brand: str | None
    last4: str | None
    exp_month: int | None
    exp_year: int | None


# A default is taken by a card that was chosen later, or by any if it is gone.
_SAVE = """
INSERT INTO payment_methods AS m (tenant_id, payment_method_id, customer_id, brand, last4, exp_month, exp_year,
    attached_at)
VALUES (%(tenant_id)s, %(card)s, %(customer_id)s, %(brand)s, %(last4)s, %(exp_month)s, %(exp_year)s, %(now)s)
ON CONFLICT (tenant_id, payment_method_id) DO UPDATE
    SET brand = excluded.brand, last4 = excluded.last4, exp_month = excluded.exp_month,
        exp_year = excluded.exp_year, attached_at = greatest(m.attached_at, excluded.attached_at), detached_at = NULL
"""

_MAKE_DEFAULT = """
UPDATE customers c SET default_payment_method_id = %(card)s
WHERE c.tenant_id = %(tenant_id)s AND c.customer_id = %(customer_id)s
    AND c.default_payment_method_id IS DISTINCT FROM %(card)s
    AND NOT EXISTS (
        SELECT FROM payment_methods m
        WHERE m.tenant_id = c.tenant_id AND m.payment_method_id = c.default_payment_method_id
            AND m.detached_at IS NULL AND m.attached_at > %(chosen_at)s
    )
"""

_MAKE_FIRST_DEFAULT = """
UPDATE customers SET default_payment_method_id = %s
WHERE tenant_id = %s AND customer_id = %s AND default_payment_method_id IS NULL
"""

_RENEW = """
UPDATE payment_methods
SET brand = %(brand)s, last4 = %(last4)s, exp_month = %(exp_month)s, exp_year = %(exp_year)s,
    held_at = NULL, hold_reason = NULL
WHERE tenant_id = %(tenant_id)s AND payment_method_id = %(card)s AND brand IS NOT NULL
    AND (brand, last4, exp_month, exp_year) IS DISTINCT FROM
        (%(brand)s, %(last4)s, %(exp_month)s::smallint, %(exp_year)s::smallint)
"""

_DETACH = """
UPDATE payment_methods SET detached_at = %s
WHERE tenant_id = %s AND payment_method_id = %s AND detached_at IS NULL
"""

_FORGET_DEFAULT = """
UPDATE customers SET default_payment_method_id = NULL
WHERE tenant_id = %s AND customer_id = %s AND default_payment_method_id = %s
"""

_CARDS = """
SELECT m.tenant_id, m.payment_method_id, m.customer_id, m.brand, m.last4, m.exp_month, m.exp_year, m.attached_at,
    m.detached_at, m.hold_reason, c.default_payment_method_id IS NOT DISTINCT FROM m.payment_method_id
FROM payment_methods m JOIN customers c ON c.tenant_id = m.tenant_id AND c.customer_id = m.customer_id
WHERE
"""

_SET_STRIPE_CUSTOMER = """
UPDATE customers SET stripe_customer_id = coalesce(stripe_customer_id, %s)
WHERE tenant_id = %s AND customer_id = %s
RETURNING stripe_customer_id
"""


def lock_customer(connection: Connection, tenant_id: str, customer_id: str) -> bool:
    """Lock a customer's row: cards change one after the other. False if there is none."""
    statement = "SELECT FROM customers WHERE tenant_id = %s AND customer_id = %s FOR NO KEY UPDATE"
    return connection.execute(statement, (tenant_id, customer_id)).fetchone() is not None


def set_stripe_customer(connection: Connection, tenant_id: str, customer_id: str, stripe_customer_id: str) -> str:
    """Remember who a customer is at Stripe; never replaces what is known, which is given back."""
    row = connection.execute(_SET_STRIPE_CUSTOMER, (stripe_customer_id, tenant_id, customer_id)).fetchone()
    assert row is not None
    return cast("str", row[0])


def find_customer(connection: Connection, stripe_customer_id: str) -> tuple[str, str] | None:
    """(tenant, customer) by the id at Stripe, or None. Takes no lock."""
    statement = "SELECT tenant_id, customer_id FROM customers WHERE stripe_customer_id = %s"
    row = connection.execute(statement, (stripe_customer_id,)).fetchone()
    return cast("tuple[str, str]", row) if row else None


def save(
    connection: Connection, tenant_id: str, customer_id: str, payment_method_id: str, face: Face, now: datetime
) -> None:
    """Keep a card that is attached to a customer; known already, it is attached since the later of both times."""
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "card": payment_method_id, "now": now}
    connection.execute(_SAVE, said | face._asdict())


def make_default(
    connection: Connection, tenant_id: str, customer_id: str, payment_method_id: str, chosen_at: datetime
) -> bool:
    """Let a customer pay with this card, unless another was chosen later; whether that changes anything."""
    said = {"tenant_id": tenant_id, "customer_id": customer_id, "card": payment_method_id, "chosen_at": chosen_at}
    return connection.execute(_MAKE_DEFAULT, said).rowcount == 1


def make_first_default(connection: Connection, tenant_id: str, customer_id: str, payment_method_id: str) -> bool:
    """Let a customer who pays with no card pay with this one; whether it was so."""
    return connection.execute(_MAKE_FIRST_DEFAULT, (payment_method_id, tenant_id, customer_id)).rowcount == 1


def renew(connection: Connection, tenant_id: str, payment_method_id: str, face: Face) -> bool:
    """Keep what a bank changed about a card, which may be tried again then; whether anything changed.

    What was not known of a card before is no change: a hold is written for a card that was never seen.
    """
    said = {"tenant_id": tenant_id, "card": payment_method_id} | face._asdict()
    return connection.execute(_RENEW, said).rowcount == 1


def detach(connection: Connection, tenant_id: str, customer_id: str, payment_method_id: str, now: datetime) -> None:
    """The customer has this card no more, and pays with it no more."""
    connection.execute(_DETACH, (now, tenant_id, payment_method_id))
    connection.execute(_FORGET_DEFAULT, (tenant_id, customer_id, payment_method_id))


def of_customer(connection: Connection, tenant_id: str, customer_id: str) -> list[CardRow]:
    """A customer's cards, the latest first; also those that were detached."""
    statement = f"{_CARDS} m.tenant_id = %s AND m.customer_id = %s ORDER BY m.attached_at DESC, m.payment_method_id"
    rows = connection.execute(statement, (tenant_id, customer_id))
    return [CardRow._make(cast("Any", row)) for row in rows]


def find(connection: Connection, payment_method_id: str) -> CardRow | None:
    """A card by its id at Stripe, or None. Takes no lock."""
    row = connection.execute(f"{_CARDS} m.payment_method_id = %s", (payment_method_id,)).fetchone()
    return CardRow._make(cast("Any", row)) if row else None
