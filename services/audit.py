"""Does everything agree with everything? One snapshot, every invariant, every row."""

from collections.abc import Callable
from dataclasses import dataclass

from config.logging import logger
from db import audit as rows
from db.audit import Difference
from db.session import Connection, in_transaction

log = logger(__name__)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found: how much there is, and every contradiction counted, the first of each check shown."""

    counts: dict[str, int]
    checks: dict[str, int]
    shown: list[Difference]

    @property
    def differences(self) -> int:
        return sum(self.checks.values())

    @property
    def parked(self) -> int:
        return self.counts["parked_events"] + self.counts["parked_inputs"]


def audit(on_check: Callable[[str, int], None] = lambda _check, _differences: None) -> Audit:
    """Check every invariant on the live database, in one snapshot; `on_check` hears of each as it is done."""

    def work(connection: Connection) -> Audit:
        rows.take_snapshot(connection)
        found: dict[str, int] = {}
        shown: list[Difference] = []
        for check in rows.CHECKS:
            found[check], examples = rows.run(connection, check)
            shown += examples
            on_check(check, found[check])
        return Audit(rows.counts(connection), found, shown)

    result = in_transaction(work)
    for difference in result.shown:
        log.error("balance inconsistency", **difference._asdict())
    return result
