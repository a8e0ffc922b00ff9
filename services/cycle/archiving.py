"""Archiving old usage: into files first, then out of the tables.

What may go lies in periods that are closed and stated, and that ended before a moment which whoever asks has chosen. An
archive is begun (its periods are chosen, and corrected no more), written (to files that were read back), emptied into
(page by page, each a transaction after which every invariant holds), and finished. Each step is a commit, so whoever
comes after one that was interrupted goes on where it stands.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from functools import partial
from itertools import islice
from pathlib import Path

from billing.errors import BrokenInvariant, Rejected, TenantNotFound
from billing.money import ZERO
from config import faults
from config.logging import logger
from config.settings import RETENTION_MONTHS_MIN
from db import archiving as rows
from db import customers as customer_rows
from db.archiving import Archive, Ready
from db.session import Connection, in_transaction
from services.cycle import archive_files as files
from services.cycle.archive_files import ArchiveDamaged, Line

log = logger(__name__)


class ArchiveBusy(Rejected):
    """Somebody else is writing this archive."""

    code = "archive_busy"


@dataclass(frozen=True, slots=True)
class Asked:
    """What to archive: what ended so many whole months ago, of everybody or of one tenant, and into which folder."""

    months: int
    root: Path
    tenant_id: str | None = None

    def before(self, now: datetime) -> datetime:
        """Until when a period must have ended. Raises `Rejected` where that would be too young."""
        if self.months < RETENTION_MONTHS_MIN:
            raise Rejected(
                f"the last {RETENTION_MONTHS_MIN} months stay: they may still be disputed, voided or rated again",
                asked=self.months,
            )
        months = now.year * 12 + now.month - 1 - self.months
        return now.replace(year=months // 12, month=months % 12 + 1, day=1, hour=0, minute=0, second=0, microsecond=0)


OnProgress = Callable[[Archive, str, int, int | None], None]
"""hears of each page: of which archive, what is done with it, how many events so far, of how many if that is known"""


def nobody_listens(_archive: Archive, _step: str, _done: int, _of: int | None) -> None:
    """What hears nothing."""


def ready(asked: Asked, now: datetime) -> list[Ready]:
    """What would be archived, by tenant and month; archives that were begun are not counted. Raises `Rejected`."""
    before = asked.before(now)
    return in_transaction(lambda connection: rows.ready(connection, before, _known(connection, asked.tenant_id)))


def archive(asked: Asked, now: datetime, on_progress: OnProgress = nobody_listens) -> list[Archive]:
    """Archive what is old enough, after what was begun before; what was finished.

    What was begun before stays where it was to go. Raises `TenantNotFound`, `ArchiveBusy`, `ArchiveDamaged`, `Rejected`
    (too young), and `BrokenInvariant` when what is to go contradicts itself: then it stays.
    """
    chosen = ready(asked, now)
    found = in_transaction(lambda connection: rows.unfinished(connection, asked.tenant_id))
    done = [_worked(one, now, on_progress) for one in found]
    for month in chosen:
        while (begun := _begun(asked, month, now)) is not None:
            done.append(_worked(begun, now, on_progress))
    return done


def _known(connection: Connection, tenant_id: str | None) -> str | None:
    if tenant_id is not None and tenant_id not in customer_rows.existing_tenants(connection, [tenant_id]):
        raise TenantNotFound(tenant_id=tenant_id)
    return tenant_id


def _begun(asked: Asked, month: Ready, now: datetime) -> Archive | None:
    """An archive of what is left of a month; None if nothing is. Raises `ArchiveBusy`."""
    before = asked.before(now)

    def work(connection: Connection) -> Archive | None:
        installation = customer_rows.installation_id(connection)
        path = str(files.folder_of(asked.root, month.tenant_id, month.month, installation))
        begun = rows.begin(connection, month.tenant_id, month.month, before, path, now)
        if begun is None and (others := rows.unfinished(connection, month.tenant_id)):
            raise ArchiveBusy(tenant_id=month.tenant_id, archive_id=others[0].archive_id)
        return begun

    return in_transaction(work)


def _worked(begun: Archive, now: datetime, on_progress: OnProgress) -> Archive:
    archive = begun
    faults.reached("archive.begun")
    if archive.sha256 is None:
        archive = in_transaction(partial(_write, begun, now, on_progress))
        faults.reached("archive.written")
    _verify(archive)
    done = 0
    for page in _pages(files.lines(Path(archive.folder))):
        in_transaction(partial(_remove, archive, page, now))
        faults.reached("archive.page_removed")
        done += len(page)
        on_progress(archive, "removing", done, archive.events)
    faults.reached("archive.emptied")
    in_transaction(lambda connection: rows.finished(connection, archive, now))
    log.info(
        "usage archived",
        tenant_id=archive.tenant_id,
        month=archive.month,
        archive_id=archive.archive_id,
        events=archive.events,
        entries=archive.entries,
        bytes=archive.size_bytes,
        folder=archive.folder,
    )
    return archive


def _write(begun: Archive, now: datetime, on_progress: OnProgress, connection: Connection) -> Archive:
    """Write the files of an archive, and note what they hold; run again, all of it is written again."""
    if rows.lock(connection, begun) is None:
        raise ArchiveBusy(tenant_id=begun.tenant_id, archive_id=begun.archive_id)
    folder = Path(begun.folder)
    found = files.write(folder, _told(begun, on_progress, _usage(connection, begun)))
    faults.reached("archive.file_written")
    files.write_manifest(folder, begun.tenant_id, begun.month, begun.archive_id, found, now)
    archive = begun._replace(
        events=found.events,
        entries=found.entries,
        tokens=found.tokens,
        cost=found.cost,
        size_bytes=found.size_bytes,
        sha256=found.sha256,
    )
    rows.written(connection, archive, now)
    return archive


def _usage(connection: Connection, archive: Archive) -> Iterator[list[str]]:
    for wallet_id in rows.wallets(connection, archive):
        yield from rows.lines_of_wallet(connection, archive.tenant_id, wallet_id)
    yield from rows.lines_without_entry(connection, archive)


def _told(archive: Archive, on_progress: OnProgress, pages: Iterator[list[str]]) -> Iterator[list[str]]:
    done = 0
    for page in pages:
        yield page
        faults.reached("archive.page_written")
        done += len(page)
        on_progress(archive, "writing", done, None)


def _verify(archive: Archive) -> None:
    """Raises `ArchiveDamaged` unless the file on the disk is the one that was written."""
    found = files.figures(Path(archive.folder))
    if (found.sha256, found.size_bytes, found.events) != (archive.sha256, archive.size_bytes, archive.events):
        raise ArchiveDamaged(f"{archive.folder}/{files.USAGE} is not what was written; nothing was removed for it")


def _pages(lines: Iterator[Line]) -> Iterator[list[Line]]:
    while page := list(islice(lines, rows.PAGE)):
        yield page


def _remove(archive: Archive, page: Sequence[Line], now: datetime, connection: Connection) -> None:
    """Take out of the tables what one page of the file holds, unless that was done before.

    Raises `BrokenInvariant`, and changes nothing, when the tables differ from the file.
    """
    if rows.lock(connection, archive) is None:
        raise ArchiveBusy(tenant_id=archive.tenant_id, archive_id=archive.archive_id)
    keys = [line.event.key for line in page]
    if rows.are_gone(connection, archive, keys) == len(page):
        return
    up_to: dict[int, tuple[int, datetime]] = {}
    expected: dict[int, tuple[int, Decimal]] = {}
    for line in page:
        if line.entry is not None:
            wallet_id = line.entry.wallet_id
            number, used = expected.get(wallet_id, (0, ZERO))
            up_to[wallet_id] = (line.entry.seq, line.event.period_start)
            expected[wallet_id] = (number + 1, used + line.entry.amount)
    removed = rows.remove_entries(connection, archive, up_to, now) if up_to else []
    for one, kept in removed:
        if one.balance_before + one.used + kept != one.balance_after:
            raise BrokenInvariant("balances don't follow; run `centavo audit`", wallet_id=one.wallet_id, seq=one.seq)
    faults.reached("archive.entries_removed")
    found = {one.wallet_id: (one.entries, one.used) for one, _ in removed}
    if found != expected or rows.lighten(connection, archive, keys) != len(page):
        raise BrokenInvariant("the ledger differs from the archive; run `centavo audit`", folder=archive.folder)
