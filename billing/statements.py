"""A statement: what a period came to, in lines that add up. A value; it is never changed once it is issued."""

from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Any

from billing.errors import BrokenInvariant
from billing.money import ZERO, written


class LineKind(StrEnum):
    """What a line tells. The words are API."""

    # Of the account of what is owed: charges add to it, what came in takes from it.
    FEE = "fee"
    TIER = "tier"
    TOP_UP = "top_up"
    COLLECTED = "collected"
    VOIDED = "voided"
    REFUNDED = "refunded"
    DISPUTED = "disputed"
    # Of a wallet: what arrives adds to it, what is used takes from it.
    USAGE = "usage"
    GRANT = "grant"
    PURCHASE = "purchase"
    BREAKAGE = "breakage"
    REFUND = "refund"
    REVERSAL = "reversal"
    VOID = "void"
    CORRECTION = "correction"
    ADJUSTMENT = "adjustment"
    # Of no account: they are told, and cost nothing here.
    COVERED = "covered"
    """Tokens that the fee and the tiers cover."""
    CORRECTED = "corrected"
    """An event of an earlier period that was voided or rated again since its statement."""


class AccountKind(StrEnum):
    """What an account of a statement keeps."""

    DUE = "due"
    """What the customer owes, in the currency of payments: above zero is owed."""
    WALLET = "wallet"
    """What a wallet holds: below zero is debt."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line. `amount` is what it adds to its account, in whole units of `currency` (not in minor ones).

    A line without an account is told and counts nothing; its amount is zero. `about` says what it is about, in
    words that a page translates: `category`, `provider` and `model` of a product, the number of a `tier`, the
    `source` of a grant. `reference` says where it came from: `payment_id`, `entry`, `event_key`, `period_start`.
    """

    number: int
    kind: LineKind
    amount: Decimal = ZERO
    account: AccountKind | None = None
    currency: str | None = None
    quantity: Decimal | None = None
    unit: str | None = None
    events: int | None = None
    about: dict[str, Any] = field(default_factory=dict)
    reference: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Balance:
    """An account in one currency, before and after the lines of a statement."""

    account: AccountKind
    currency: str
    opening: Decimal
    closing: Decimal


@dataclass(frozen=True, slots=True)
class Statement:
    """A customer's statement over one period, half-open in UTC; `number` counts without gaps within the tenant."""

    tenant_id: str
    tenant_name: str
    customer_id: str
    number: int
    issued_at: datetime
    period_start: datetime
    period_end: datetime
    time_zone: str
    plan_id: str
    plan_version: int
    plan_name: str
    tokens: int
    included_tokens: int
    tiers: int
    events: int
    balances: tuple[Balance, ...]
    lines: tuple[Line, ...]

    def check(self) -> None:
        """Each closing balance is the opening one and the lines of its account. Raises `BrokenInvariant`."""
        for balance in self.balances:
            moved = sum((line.amount for line in self.lines if _is_of(line, balance)), ZERO)
            if balance.opening + moved != balance.closing:
                raise BrokenInvariant(
                    f"statement {self.number}: {balance.account} {balance.currency} {written(balance.opening)} and its "
                    f"lines {written(moved)} do not come to {written(balance.closing)}"
                )
        accounts = {(balance.account, balance.currency) for balance in self.balances}
        for line in self.lines:
            if line.account is None and line.amount:
                raise BrokenInvariant(f"statement {self.number}: line {line.number} has an amount and no account")
            if line.account is not None and (line.account, line.currency) not in accounts:
                raise BrokenInvariant(f"statement {self.number}: line {line.number} is of an account without a balance")


def _is_of(line: Line, balance: Balance) -> bool:
    return (line.account, line.currency) == (balance.account, balance.currency)
