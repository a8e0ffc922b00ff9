"""What a tenant has set for itself, where the installation says otherwise."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from billing.affordability import check_buffer
from billing.errors import Rejected
from billing.money import COST_PLACES, as_cost, written

DIGITS_MAX = 24
LOW_REQUESTS_MAX = 1_000_000
_CURRENCY = re.compile(r"[A-Z]{3}|CREDIT|", re.ASCII)


@dataclass(frozen=True, slots=True)
class TenantSettings:
    """A tenant's own settings; None: as the installation's setting of the same name says."""

    free_tier_credits: Decimal | None = None
    """Given each month, on plans that don't say how many."""
    affordability_buffer: Decimal | None = None
    low_balance: Mapping[str, Decimal] | None = None
    """Below how much a wallet is low, by currency; under "" in every other; without it, no other ever is."""
    audit_alert_percent: Decimal | None = None
    audit_alert_value_percent: Decimal | None = None
    low_requests_per_minute: int | None = None
    """How often a customer whose wallet is low may ask for what costs something; None: as often as anybody."""


def low_below(thresholds: Mapping[str, Decimal], currency: str) -> Decimal | None:
    """Below how much a wallet in this currency is low; None: it never is.

    >>> low_below({"": Decimal(1), "CREDIT": Decimal(1000)}, "USD")
    Decimal('1')
    """
    return thresholds.get(currency, thresholds.get(""))


def as_said(thresholds: Mapping[str, Decimal]) -> str:
    """Thresholds as people write them.

    >>> as_said({"CREDIT": Decimal(1000), "": Decimal("5.50")})
    '5.5, CREDIT=1000'
    """
    return ", ".join(f"{f'{one}=' if one else ''}{written(thresholds[one])}" for one in sorted(thresholds))


def check(own: TenantSettings) -> None:
    """Raises `Rejected` for what can't be set."""
    for name in ("free_tier_credits", "audit_alert_percent", "audit_alert_value_percent"):
        value: Decimal | None = getattr(own, name)
        if value is not None:
            _check_number(name, value)
    if own.affordability_buffer is not None:
        check_buffer(own.affordability_buffer)
        _check_number("affordability_buffer", own.affordability_buffer)
    for currency, below in (own.low_balance or {}).items():
        if not _CURRENCY.fullmatch(currency):
            raise Rejected("low_balance names ISO currencies, or CREDIT", currency=currency)
        _check_number("low_balance", below)
    most = own.low_requests_per_minute
    if most is not None and not 1 <= most <= LOW_REQUESTS_MAX:
        raise Rejected(f"low_requests_per_minute lies between 1 and {LOW_REQUESTS_MAX}", given=most)


def _check_number(name: str, value: Decimal) -> None:
    if not value.is_finite() or value < 0 or value >= 10 ** (DIGITS_MAX - COST_PLACES) or value != as_cost(value):
        raise Rejected(
            f"{name} is a number of at least 0, with {DIGITS_MAX - COST_PLACES} digits before the point and "
            f"{COST_PLACES} behind it at most",
            given=str(value),
        )
