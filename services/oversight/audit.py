"""Does everything agree with everything? One snapshot, every invariant, every row."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from billing.errors import TenantNotFound
from config.logging import logger
from db import audit as rows
from db.audit import Difference
from db.customers import existing_tenants
from db.differences import rows_of
from db.session import Connection, audit_engine, in_transaction

log = logger(__name__)

#: What is checked, in order.
CHECKS = tuple(rows.CHECKS)


@dataclass(frozen=True, slots=True)
class Audit:
    """What an audit found: how much there is, and every contradiction counted, the first of each check shown."""

    counts: dict[str, int]
    checks: dict[str, int]
    shown: list[Difference]
    seconds: dict[str, float] = field(default_factory=dict)
    rows_of: dict[str, int] = field(default_factory=dict)
    """Of each tenant that is among the shown: how much was checked."""

    @property
    def differences(self) -> int:
        return sum(self.checks.values())

    @property
    def parked(self) -> int:
        return self.counts["parked_events"] + self.counts["parked_inputs"]


def audit(
    on_check: Callable[[str, int], None] = lambda _check, _differences: None,
    *,
    tenant_id: str | None = None,
    shown_max: int = rows.SHOWN_MAX,
) -> Audit:
    """Check every invariant on the live database, in one snapshot; `on_check` hears of each as it is done.

    Of one tenant's data, or of all. Raises `TenantNotFound`, and `AuditRefused` when it would run under a role that
    could write.
    """

    def work(connection: Connection) -> Audit:
        rows.take_snapshot(connection)
        if tenant_id is not None and not existing_tenants(connection, [tenant_id]):
            raise TenantNotFound(tenant_id=tenant_id)
        result = Audit({}, {}, [])
        for check in CHECKS:
            begun = time.monotonic()
            result.checks[check], examples = rows.run(connection, check, tenant_id, shown_max)
            result.seconds[check] = round(time.monotonic() - begun, 3)
            result.shown.extend(examples)
            log.info("invariant checked", check=check, differences=result.checks[check], seconds=result.seconds[check])
            on_check(check, result.checks[check])
        result.rows_of.update(rows_of(connection, {one.tenant_id for one in result.shown}))
        result.counts.update(rows.counts(connection, tenant_id))
        return result

    result = in_transaction(work, audit_engine)
    for difference in result.shown[: rows.SHOWN_MAX]:
        log.error("balance inconsistency", **difference._asdict())
    return result
