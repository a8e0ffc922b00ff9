"""Correcting what events cost, under the customer's lock: one ledger entry for each wallet, one row for each event.

What costs less is given back to what the event has burned; what costs more burns what was valid when the event
occurred. Originals stay as they are: the event, and the entry that it was charged by.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal

from billing.corrections import Burned, debt_nobody_knows, less, more
from billing.errors import BrokenInvariant, UsageArchived, WalletNotFound
from billing.grants import DEBT, Grant, Source, burn, give_back, in_burn_order
from billing.money import ZERO, written
from billing.rerating import PastEvent, PastLine
from config.logging import logger
from db import archiving
from db import corrections as rows
from db.corrections import NewCorrection, PeriodStanding
from db.session import Connection
from services.books import catalogue
from services.books.ledger import Gift, OpenWallet, Told

log = logger(__name__)

CONTRA = "revenue:usage"


def refuse_archived(connection: Connection, tenant_id: str, periods: Sequence[tuple[str, datetime]]) -> None:
    """Raises `UsageArchived` where the lines of events of one of these (customer, start) are in files, or on their way.

    It holds for whom the period's row is locked.
    """
    if found := archiving.first_archived(connection, tenant_id, periods):
        customer_id, starts_at, folder = found
        said = f"usage of customer {customer_id} in the period from {starts_at:%Y-%m-%d} is archived in {folder}"
        raise UsageArchived(f"{said}; what it cost can be put right by a grant, or an adjustment")


@dataclass(slots=True)
class _Moved:
    """What one wallet's entry comes to."""

    wallet: OpenWallet
    seq: int
    amount: Decimal = ZERO
    parts: Burned = field(default_factory=dict)

    def add(self, amount: Decimal, parts: dict[str, Decimal]) -> None:
        self.amount += amount
        for name, moved in parts.items():
            self.parts[name] = self.parts.get(name, ZERO) + moved


@dataclass(slots=True)
class Correcting:
    """Corrections of events of one period, on their way into the wallets of one customer.

    The caller holds the wallets (opened with grants that have ended) and the period's row, hands over events page by
    page, and ends with `enter` and `services.books.ledger.write`.
    """

    connection: Connection
    period: PeriodStanding
    wallets: Sequence[OpenWallet]
    reason: str
    now: datetime
    moved: dict[int, _Moved] = field(default_factory=dict)
    pending: list[NewCorrection] = field(default_factory=list)
    climbs: dict[int, Decimal] = field(default_factory=dict)
    """By how much ladders are climbed further, or less, by price."""

    def __post_init__(self) -> None:
        for wallet in self.wallets:
            # What is given back may be burned again by what follows.
            wallet.standing.grants = in_burn_order(wallet.grants.values())
            wallet.ended = []

    @property
    def told_in(self) -> datetime:
        """The period whose statement tells it: the events' own while it is open, else the current one."""
        return self.wallets[0].told_in if self.period.is_closed and self.wallets else self.period.starts_at

    def burned(self, events: Sequence[PastEvent]) -> dict[str, Burned]:
        """What each of these events has taken so far."""
        known = {event.key: dict(event.burned) for event in events if event.burned is not None}
        asked = [event for event in events if event.burned is None and event.cost]
        wallet_ids = [wallet.row.wallet_id for wallet in self.wallets]
        return known | rows.burned(self.connection, self.period.tenant_id, wallet_ids, asked)

    def rerate(self, event: PastEvent, lines: Sequence[PastLine], currency: str | None, burned: Burned) -> None:
        """Let an event cost what these lines do."""
        cost = sum((line.cost for line in lines), ZERO)
        moved, left = self._move(event, cost - event.cost, currency, burned)
        detail = rows.detail_as_json(lines, left)
        self._note("rerate", event, 0, cost - event.cost, currency, moved, detail)

    def void(self, event: PastEvent, burned: Burned) -> None:
        """Let an event cost nothing, and count no tokens."""
        moved, _ = self._move(event, -event.cost, event.currency, burned)
        self._note("void", event, -event.tokens, -event.cost, event.currency, moved, None)

    def climb(self, climbs: Mapping[int, Decimal]) -> None:
        """Let ladders be climbed further, or less; written with the entries."""
        for price_id, quantity in climbs.items():
            self.climbs[price_id] = self.climbs.get(price_id, ZERO) + quantity

    def flush(self) -> None:
        """Write the rows of the events handed over so far; their entries come last."""
        if self.pending:
            rows.add(self.connection, self.pending, self.now)
            self.pending = []

    def enter(self, kind: str, event_key: str | None = None) -> None:
        """Make one entry of each wallet that was moved. Wallets and grants are not written yet."""
        self.flush()
        rows.climb(self.connection, self.period, {price: moved for price, moved in self.climbs.items() if moved})
        told = Told(kind, CONTRA, self.reason, event_key, period_start=self.told_in)
        for moved in self.moved.values():
            entry = moved.wallet.correct(moved.amount, moved.parts, told)
            if entry.seq != moved.seq:
                raise BrokenInvariant(f"entry #{moved.seq} was promised, and became #{entry.seq}")

    def _move(
        self, event: PastEvent, difference: Decimal, currency: str | None, burned: Burned
    ) -> tuple[_Moved | None, Burned]:
        """Take or give back what an event's cost differs by; the wallet's entry, and what the event has burned then."""
        if not difference:
            return None, burned
        moved = self._of(currency)
        standing = moved.wallet.standing
        if difference > ZERO:
            parts = burn(standing, difference, event.occurred_at).of(-difference)
            left = more(burned, parts)
        else:
            parts, left = self._given_back(moved.wallet, event, -difference, burned)
        moved.add(-difference, parts)
        return moved, left

    def _given_back(
        self, wallet: OpenWallet, event: PastEvent, amount: Decimal, burned: Burned
    ) -> tuple[dict[str, Decimal], Burned]:
        grants = wallet.grants
        left = less(burned, amount, grants)
        strange = debt_nobody_knows(burned, amount, wallet.standing.debt, grants)
        known = burned | {DEBT: burned.get(DEBT, ZERO) - strange}
        parts = dict(give_back(wallet.standing, known, amount - strange, grants).of(amount - strange))
        if strange:
            given = self._anew(wallet, event, strange)
            parts[given.grant_id] = strange
        return parts, left

    def _anew(self, wallet: OpenWallet, event: PastEvent, amount: Decimal) -> Grant:
        """A grant for what comes back of a time before grants were kept, when nobody knows which it had been."""
        named = f"correction\0{event.tenant_id}\0{event.key}\0{self.now.isoformat()}"
        gift = Gift(uuid.uuid5(catalogue.installation(self.connection), named), amount, Source.ADJUSTMENT, self.reason)
        log.warning("what comes back was burned before grants were kept", key=event.key, amount=written(amount))
        return wallet.add(gift)

    def _of(self, currency: str | None) -> _Moved:
        for wallet in self.wallets:
            if wallet.row.currency == currency:
                new = _Moved(wallet, wallet.standing.last_seq + 1)
                return self.moved.setdefault(wallet.row.wallet_id, new)
        raise WalletNotFound(tenant_id=self.period.tenant_id, customer_id=self.period.customer_id, currency=currency)

    def _note(
        self,
        kind: str,
        event: PastEvent,
        tokens: int,
        cost: Decimal,
        currency: str | None,
        moved: _Moved | None,
        detail: str | None,
    ) -> None:
        self.pending.append(
            NewCorrection(
                event.tenant_id,
                kind,
                event.key,
                event.customer_id,
                self.period.starts_at,
                self.told_in,
                tokens,
                cost,
                currency,
                moved.wallet.row.wallet_id if moved else None,
                moved.seq if moved else None,
                detail,
                self.reason,
            )
        )
