"""The lines of a statement in the order in which a customer asks: what was it for, what have I paid, what is left."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from billing.money import ZERO
from billing.statements import AccountKind, Balance, Line, LineKind, Statement


class SectionKind(StrEnum):
    """What the lines of a section have in common; sections stand in this order."""

    FEES = "fees"
    PAYMENTS = "payments"
    USAGE = "usage"
    CREDITS = "credits"
    CORRECTIONS = "corrections"
    COVERED = "covered"
    EARLIER = "earlier"


KINDS: dict[SectionKind, tuple[LineKind, ...]] = {
    SectionKind.FEES: (LineKind.FEE, LineKind.TIER, LineKind.TOP_UP),
    SectionKind.PAYMENTS: (LineKind.COLLECTED, LineKind.REFUNDED, LineKind.VOIDED, LineKind.DISPUTED),
    SectionKind.USAGE: (LineKind.USAGE,),
    SectionKind.CREDITS: (
        LineKind.GRANT,
        LineKind.PURCHASE,
        LineKind.REFUND,
        LineKind.REVERSAL,
        LineKind.BREAKAGE,
        LineKind.ADJUSTMENT,
    ),
    SectionKind.CORRECTIONS: (LineKind.VOID, LineKind.CORRECTION),
    SectionKind.COVERED: (LineKind.COVERED,),
    SectionKind.EARLIER: (LineKind.CORRECTED,),
}


@dataclass(frozen=True, slots=True)
class Section:
    """Lines of one kind and one account; of none where they are told and count nothing."""

    kind: SectionKind
    account: AccountKind | None
    currency: str | None
    lines: tuple[Line, ...]

    @property
    def total(self) -> Decimal:
        """What the section adds to its account."""
        return sum((line.amount for line in self.lines), ZERO)


def balances_of(statement: Statement) -> list[Balance]:
    """The accounts in the order of a page: what is owed, then the wallets."""
    return sorted(statement.balances, key=lambda balance: balance.account != AccountKind.DUE)


def sections_of(statement: Statement, balance: Balance) -> list[Section]:
    """The sections of an account: with its opening balance they come to its closing one."""
    return _sections(statement.lines, balance.account, balance.currency)


def told_sections(statement: Statement) -> list[Section]:
    """What is told and counts nothing."""
    told = [line for line in statement.lines if line.account is None]
    currencies = sorted({line.currency for line in told}, key=lambda currency: currency or "")
    return [section for currency in currencies for section in _sections(told, None, currency)]


def _sections(lines: Iterable[Line], account: AccountKind | None, currency: str | None) -> list[Section]:
    own = [line for line in lines if (line.account, line.currency) == (account, currency)]
    found = (
        Section(kind, account, currency, tuple(line for line in own if line.kind in kinds))
        for kind, kinds in KINDS.items()
    )
    return [section for section in found if section.lines]
