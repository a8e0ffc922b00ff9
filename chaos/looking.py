"""The database and the Stripe double as plain facts, for the oracle to be compared with."""

from collections.abc import Sequence
from typing import Any, LiteralString

from chaos.facts import (
    AlertFact,
    ArchivedFact,
    Captured,
    CaptureFact,
    CountFact,
    EntryFact,
    EventFact,
    Facts,
    GrantFact,
    HoldFact,
    InputFact,
    PaymentFact,
    PeriodFact,
    QuotaFact,
    WalletFact,
    WarningFact,
)
from db import outcome
from db.session import Connection, in_transaction, make_engine
from sandbox.stripe_double.control import DoubleControl


def look(database_url: str, control: DoubleControl, archived: Sequence[ArchivedFact] = ()) -> Facts:
    """All that is there now, in one snapshot, beside what was archived."""
    engine = make_engine(database_url, limits=False)
    try:
        return in_transaction(lambda connection: _read(connection, control, archived), lambda: engine)
    finally:
        engine.dispose()


def _read(connection: Connection, control: DoubleControl, archived: Sequence[ArchivedFact]) -> Facts:
    outcome.take_snapshot(connection)

    def all_of(kind: Any, statement: LiteralString) -> Any:
        return [kind._make(row) for row in outcome.rows(connection, statement)]

    captured = {
        name: Captured(entry.captured_minor, entry.refunded_minor, len(entry.succeeded_intents))
        for name, entry in control.ledger().items()
    }
    return Facts(
        [
            row._replace(context=tuple(row.context), quota_ids=tuple(row.quota_ids))
            for row in all_of(EventFact, outcome.EVENTS)
        ],
        all_of(EntryFact, outcome.ENTRIES),
        all_of(WalletFact, outcome.WALLETS),
        all_of(GrantFact, outcome.GRANTS),
        all_of(PeriodFact, outcome.PERIODS),
        all_of(PaymentFact, outcome.PAYMENTS),
        all_of(InputFact, outcome.INPUTS),
        captured,
        all_of(HoldFact, outcome.HOLDS),
        all_of(CaptureFact, outcome.CAPTURES),
        all_of(QuotaFact, outcome.QUOTAS),
        all_of(CountFact, outcome.COUNTS),
        all_of(WarningFact, outcome.WARNINGS),
        all_of(AlertFact, outcome.ALERTS),
        archived,
    )
