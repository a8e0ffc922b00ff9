"""Things that tests need, made through the services that users call."""

import base64
import zlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from centavo import Item, UsageEvent
from centavo.envelopes import COMPRESSED, COMPRESSED_FROM_BYTES, COMPRESSION_LEVEL
from services.books import customers, tenants
from services.books.catalogue_files import read_plans, read_prices
from services.books.credits import Grant, grant
from services.desk import prices

TENANT = "acme"


def catalogues(now: datetime | None = None) -> None:
    """A tenant with the shipped plans, and the shipped prices for everybody."""
    moment = now or datetime.now(UTC)
    tenants.create_tenant(TENANT, "Acme", moment)
    tenants.load_plans(TENANT, read_plans("default"), moment)
    for name in ("credits-per-message", "usd-per-unit"):
        prices.load_prices(read_prices(name), moment)


def a_customer(
    customer_id: str = "ana",
    *,
    plan: str = "prepaid",
    currencies: tuple[str, ...] = ("USD",),
    credit: str | None = None,
    time_zone: str = "America/Sao_Paulo",
    now: datetime | None = None,
) -> str:
    """A customer of the tenant, with credit in the first currency if told."""
    now = now or datetime.now(UTC)
    customers.create_customers([customers.NewCustomer(TENANT, customer_id, plan, time_zone, currencies)], now)
    if credit is not None:
        given = Grant(
            TENANT, customer_id, currencies[0], Decimal(credit), "promo", "new_user_bonus", f"first:{customer_id}"
        )
        grant(given, now)
    return customer_id


def tokens(quantity: int | str, *, category: str = "llm_prompt", model: str = "gpt-4") -> Item:
    """So many tokens of a language model."""
    return Item(category=category, provider="openai", model=model, unit="token", quantity=Decimal(quantity))


def an_event(customer_id: str = "ana", items: Sequence[Item] | None = None, **fields: Any) -> UsageEvent:
    """A usage event of the tenant's customer, a minute ago."""
    fields.setdefault("occurred_at", datetime.now(UTC) - timedelta(minutes=1))
    return UsageEvent(
        tenant_id=fields.pop("tenant_id", TENANT),
        customer_id=customer_id,
        items=tuple(items or [tokens(1000)]),
        **fields,
    )


def an_envelope(*events: UsageEvent | bytes) -> bytes:
    """An envelope of events, or of raw bytes in the place of some; as the SDK sends it, a large one compressed."""
    pieces = [event.to_wire() if isinstance(event, UsageEvent) else event for event in events]
    text = b'{"v":1,"id":"test","sent_at":"2026-11-20T00:00:00Z","events":[' + b",".join(pieces) + b"]}"
    if len(text) < COMPRESSED_FROM_BYTES:
        return text
    return COMPRESSED + base64.b64encode(zlib.compress(text, COMPRESSION_LEVEL))
