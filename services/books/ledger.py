"""Writing into wallets by hand and by schedule: grants, breakage, purchases, what is given back.

The usage path has a way of its own (`services.metering.posting`); everything else that moves value goes through here. A
customer's wallets are locked, movements are made on them in memory by the rules of `billing.grants`, and all of it
is written at once.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from uuid import UUID

from billing.errors import WalletNotFound
from billing.grants import (
    PRIORITIES,
    Change,
    Grant,
    Source,
    Standing,
    arrive,
    broken,
    burn,
    give_back,
    in_burn_order,
    take_back,
)
from billing.money import ZERO
from db import grants as grant_rows
from db import wallets as rows
from db.grants import NewGrant
from db.session import Connection
from db.wallets import Entry, WalletRow
from services.books import periods

Identity = tuple[str, str]
"""tenant, customer"""

#: What these move is usage, given back or taken anew: it counts in what a wallet has used, not in what it received.
OF_USAGE = frozenset({"void", "correction"})


@dataclass(frozen=True, slots=True)
class Gift:
    """A grant to give: how much, from where, why, and when it is valid (None: without bound)."""

    grant_id: UUID
    amount: Decimal
    source: Source
    reason: str
    priority: int | None = None
    valid_from: datetime | None = None
    expires_at: datetime | None = None
    breaks_at: datetime | None = None
    period_start: datetime | None = None
    payment_id: UUID | None = None


@dataclass(frozen=True, slots=True)
class Told:
    """What an entry says beside its movement."""

    kind: str
    contra: str
    reason: str | None = None
    event_key: str | None = None
    payment_id: UUID | None = None
    idempotency_key: str | None = None
    period_start: datetime | None = None
    """The open period whose statement tells it; the current one unless said."""


@dataclass(slots=True)
class OpenWallet:
    """A wallet under lock, with what is written into it."""

    row: WalletRow
    standing: Standing
    now: datetime
    told_in: datetime
    """The period whose statement tells what is written now."""
    ended: list[Grant] = field(default_factory=list)
    """Grants that have nothing left; read where something may be given back to them."""
    entries: list[Entry] = field(default_factory=list)
    given: list[tuple[Gift, Grant]] = field(default_factory=list)

    @property
    def key(self) -> tuple[str, int]:
        return self.row.tenant_id, self.row.wallet_id

    @property
    def grants(self) -> dict[str, Grant]:
        """All its grants that were read, by id."""
        return {grant.grant_id: grant for grant in (*self.standing.grants, *self.ended)}

    def give(self, gift: Gift, told: Told, payable: Decimal | None = None) -> Entry:
        """Let a grant arrive; `payable` is what `payable_debt` says."""
        priority = PRIORITIES[gift.source] if gift.priority is None else gift.priority
        grant = Grant(str(gift.grant_id), ZERO, gift.valid_from, gift.expires_at, priority, number=_NEWEST)
        change = arrive(self.standing, grant, gift.amount, payable)
        self.given.append((gift, grant))
        self.standing.grants = in_burn_order((*self.standing.grants, grant))
        return self._enter(gift.amount, change, told)

    def add(self, gift: Gift) -> Grant:
        """Let a grant arrive whole, as part of an entry that the caller makes; debt is not paid by it."""
        priority = PRIORITIES[gift.source] if gift.priority is None else gift.priority
        grant = Grant(str(gift.grant_id), gift.amount, gift.valid_from, gift.expires_at, priority, number=_NEWEST)
        self.given.append((gift, grant))
        self.standing.grants = in_burn_order((*self.standing.grants, grant))
        return grant

    def give_again(self, grant: Grant, amount: Decimal, told: Told) -> Entry:
        """Let value arrive in a grant that was there before."""
        return self._enter(amount, arrive(self.standing, grant, amount), told)

    def take_back(self, grant: Grant, amount: Decimal, told: Told) -> Entry:
        """Take back what a grant gave; what it no longer has becomes debt."""
        return self._enter(-amount, take_back(self.standing, grant, amount), told)

    def break_(self, grant: Grant) -> Entry | None:
        """Take what remains of a grant whose time is over, but for what is reserved."""
        amount = broken(self.standing, grant)
        return self._enter(-amount, Change(grant.grant_id), Told("breakage", "breakage")) if amount else None

    def give_back(self, burned: dict[str, Decimal], amount: Decimal, told: Told) -> Entry:
        """Undo so much of what usage has burned."""
        return self._enter(amount, give_back(self.standing, burned, amount, self.grants), told)

    def burn(self, amounts: Sequence[tuple[Decimal, datetime]], told: Told) -> Entry:
        """Take more for usage that was charged too little: each amount with when it occurred, in one entry."""
        parts: dict[str, Decimal] = {}
        total = ZERO
        for amount, occurred_at in amounts:
            total += amount
            for name, moved in burn(self.standing, amount, occurred_at).of(-amount).items():
                parts[name] = parts.get(name, ZERO) + moved
        return self._enter(-total, Change(parts=parts), told)

    def correct(self, amount: Decimal, parts: dict[str, Decimal], told: Told) -> Entry:
        """Enter what was given back to its grants and burned anew, all of it made on its standing already."""
        return self._enter(amount, Change(parts=parts), told)

    def number(self, numbers: dict[str, int]) -> None:
        """Number what was given, and leave all that is open in the order in which it is burned."""
        for _, grant in self.given:
            grant.number = numbers[grant.grant_id]
        known = list(self.grants.values())
        self.standing.grants = in_burn_order(grant for grant in known if grant.remaining)
        self.ended = [grant for grant in known if not grant.remaining]

    def _enter(self, amount: Decimal, change: Change, told: Told) -> Entry:
        standing = self.standing
        standing.balance += amount
        standing.last_seq += 1
        standing.is_changed = True
        if told.kind in OF_USAGE:
            standing.spent -= amount
        else:
            standing.received += amount
        entry = Entry(
            *self.key,
            standing.last_seq,
            amount,
            standing.balance,
            told.kind,
            told.contra,
            told.reason,
            told.event_key,
            told.payment_id,
            told.idempotency_key,
            self.now,
            self.now,
            change,
            told.period_start or self.told_in,
        )
        self.entries.append(entry)
        return entry


#: A grant that is not written yet is younger than all that are.
_NEWEST = 2**62


def open_wallets(
    connection: Connection, customers: Sequence[Identity], now: datetime, *, with_ended: bool = False
) -> dict[Identity, list[OpenWallet]]:
    """Lock all wallets of these customers, in order, with their grants; begins periods that are not there yet.

    `with_ended` reads grants that have nothing left too: for what may give something back to them.
    """
    locked = rows.lock_of_customers(connection, sorted(customers)) if customers else []
    if not locked:
        return {}
    kept = {(row.tenant_id, row.wallet_id): row.open_grants for row in locked}
    grants = grant_rows.read(connection, kept, with_ended=with_ended)
    told_in = periods.current(connection, sorted({(row.tenant_id, row.customer_id) for row in locked}), now)
    opened: dict[Identity, list[OpenWallet]] = {}
    for row, key in zip(locked, kept, strict=True):
        identity = (row.tenant_id, row.customer_id)
        mine = grants.get(key, [])
        open_ones = [grant for grant in mine if grant.remaining]
        standing = Standing(row.balance, row.last_seq, row.debt, open_ones, row.reserved)
        ended = [grant for grant in mine if not grant.remaining]
        opened.setdefault(identity, []).append(OpenWallet(row, standing, now, told_in[identity].starts_at, ended))
    return opened


def payable_debt(connection: Connection, wallet: OpenWallet, gift: Gift) -> Decimal | None:
    """How much of a wallet's debt a grant may pay: what came from events of its time; None where it has no bounds."""
    if (gift.valid_from is None and gift.expires_at is None) or not wallet.standing.debt:
        return None
    return grant_rows.debt_of_span(connection, *wallet.key, gift.valid_from, gift.expires_at)


def wallet_in(wallets: Iterable[OpenWallet], identity: Identity, currency: str) -> OpenWallet:
    """The customer's wallet in a currency. Raises `WalletNotFound`."""
    for wallet in wallets:
        if wallet.row.currency == currency:
            return wallet
    raise WalletNotFound(tenant_id=identity[0], customer_id=identity[1], currency=currency)


def write(connection: Connection, wallets: Iterable[OpenWallet]) -> None:
    """Write all that was moved: new grants, entries, and wallets and grants as they stand.

    Raises `Stale` when an idempotency key was used meanwhile, for another wallet.
    """
    moved = [wallet for wallet in wallets if wallet.entries]
    if not moved:
        return
    now = moved[0].now
    new = [_new_grant(wallet, gift, grant) for wallet in moved for gift, grant in wallet.given]
    numbers = grant_rows.add(connection, new, now) if new else {}
    for wallet in moved:
        wallet.number(numbers)
    entries = sorted(entry for wallet in moved for entry in wallet.entries)
    rows.write(connection, entries, {wallet.key: wallet.standing for wallet in moved})
    changed = [
        (wallet.row.tenant_id, grant)
        for wallet in moved
        for grant in wallet.grants.values()
        if grant.is_changed and grant.grant_id not in numbers
    ]
    if changed:
        grant_rows.save(connection, changed, now)


def shorten(
    connection: Connection, identity: Identity, grant_id: UUID, expires_at: datetime, breaks_at: datetime
) -> None:
    """Let a grant, should it be there, end earlier. The caller holds the customer's wallets."""
    if not grant_rows.shorten(connection, identity[0], grant_id, expires_at, breaks_at):
        return
    kept = {(row.tenant_id, row.wallet_id): row.open_grants for row in rows.lock_of_customers(connection, [identity])}
    # Read again, they are in the order in which they are burned now.
    rows.keep_grants(connection, grant_rows.read(connection, kept, with_ended=False))


def _new_grant(wallet: OpenWallet, gift: Gift, grant: Grant) -> NewGrant:
    return NewGrant(
        wallet.row.tenant_id,
        gift.grant_id,
        wallet.row.wallet_id,
        gift.source.value,
        grant.priority,
        gift.amount,
        grant.paid_debt,
        gift.valid_from,
        gift.expires_at,
        gift.breaks_at,
        gift.reason,
        gift.period_start,
        gift.payment_id,
        None if grant.remaining else wallet.now,
    )
