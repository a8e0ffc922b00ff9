"""Old usage goes into files, and nothing that anybody may ask for later has changed."""

import gzip
import json
import os
import random
import subprocess
import sys
import tracemalloc
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest

from billing.errors import BrokenInvariant, Rejected, TenantNotFound, UsageArchived
from config.settings import settings
from db import archiving as rows_of
from sandbox.stack import ROOT
from services.books.credits import Grant, grant
from services.cycle import archive_files, archiving
from services.cycle.archive_files import MANIFEST, USAGE, ArchiveDamaged
from services.cycle.archiving import ArchiveBusy, Asked, archive, ready
from services.metering.rerating import Asked as Rerating
from services.metering.rerating import Span, rerate
from services.metering.usage import record_usage
from services.metering.voiding_usage import void
from services.oversight.audit import audit
from tests.factories import TENANT, an_envelope, an_event, tokens
from tests.looking import one, rows
from tests.services.correcting import seconds
from tests.services.monthly import everything
from tests.services.past_usage import FIRST, LAST, Past, answers, customers_of_all_kinds

pytestmark = pytest.mark.usefixtures("billing_database")

MONTHS = 6
#: What ended before is archived: December, less six months, from its first day on.
BEFORE = datetime(2026, 6, 1, tzinfo=UTC)
#: Where a run may be killed, in order.
POINTS = ("begun", "page_written", "file_written", "written", "entries_removed", "page_removed", "emptied")


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Into the test's folder, in small pages."""
    monkeypatch.setattr(rows_of, "PAGE", 7)
    return Asked(MONTHS, tmp_path / "archive")


def files(asked: Asked) -> list[dict[str, Any]]:
    """Every line that was archived."""
    return [line for path in sorted(asked.root.glob(f"*/*/*/{USAGE}")) for line in lines_of(path)]


def lines_of(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path) as file:
        return [json.loads(line, parse_float=Decimal, parse_int=Decimal) for line in file]


def entries_left() -> int:
    """Entries of usage of archived events that still stand one by one."""
    statement = """
        SELECT count(*) FROM ledger_entries e JOIN usage_events u USING (tenant_id)
        WHERE e.kind = 'usage' AND u.key = e.event_key AND u.archive_id IS NOT NULL
    """
    return int(one(statement)[0])


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happened_its_archive_changes_no_answer(asked: Asked, seed: int) -> None:
    """Balances, grants, statements and events are the same; the audit holds; so it does after more of it."""
    past = Past(random.Random(seed))
    past.live()
    before = answers()
    old = rows(
        "SELECT key, to_jsonb(u) FROM usage_events u WHERE charged_at IS NOT NULL AND (tenant_id, customer_id, "
        "period_start) IN (SELECT tenant_id, customer_id, starts_at FROM periods WHERE ends_at <= %s)",
        BEFORE,
    )

    planned = ready(asked, LAST)
    done = archive(asked, LAST)

    assert audit().shown == [] == audit(tenant_id=TENANT).shown
    assert answers() == before
    lines = {line["event"]["key"]: line for line in files(asked)}
    left = {key for (key,) in rows("SELECT key FROM usage_events WHERE charged_at IS NOT NULL AND archive_id IS NULL")}
    assert {one.month for one in done} == {one.month for one in planned}
    assert lines.keys() <= {key for key, _ in old}
    assert {key for key, _ in old} - left == lines.keys()
    assert entries_left() == 0
    assert {key: line["event"]["items"] for key, line in lines.items()} == {
        key: row["items"] for key, row in old if key in lines
    }
    assert ready(asked, LAST) == [] == archive(asked, LAST)
    later = LAST.replace(year=2027)
    past.at = LAST
    past.give()
    everything(later)
    archive(asked, later)
    assert audit().shown == []
    assert entries_left() == 0


def test_what_was_archived_is_still_known_by_its_key(asked: Asked) -> None:
    """The same again is a duplicate, something else under its key a conflict; both as before."""
    Past(random.Random(1)).live(FIRST + timedelta(days=60))
    event = an_event("ana", [seconds(3)], key="twice", occurred_at=FIRST + timedelta(days=90))
    assert record_usage(an_envelope(event), FIRST + timedelta(days=90)).charged == 1
    everything(LAST)
    archive(asked, LAST)
    assert one("SELECT archive_id IS NOT NULL, items FROM usage_events WHERE key = 'twice'") == (True, [])

    again = record_usage(an_envelope(event), LAST)
    other = record_usage(an_envelope(event.model_copy(update={"items": (seconds(4),)})), LAST)

    assert (again.duplicates, again.charged, other.conflicts, other.charged) == (1, 0, 1, 0)
    assert rows("SELECT reason FROM parked_inputs WHERE key = 'twice'") == [("key_conflict",)]


def test_what_was_archived_is_not_corrected_and_is_told_where_it_is(asked: Asked) -> None:
    past = Past(random.Random(2))
    past.live()
    archive(asked, LAST)
    before = answers()
    (key,) = one("SELECT key FROM usage_events WHERE archive_id IS NOT NULL AND status = 'charged' ORDER BY key")
    folder = str(asked.root / TENANT)

    with pytest.raises(UsageArchived, match=folder):
        void(TENANT, key, "too late", LAST)
    for is_applied in (False, True):
        with pytest.raises(UsageArchived, match=folder):
            rerate(Rerating(TENANT, Span.month("2026-02")), LAST, is_applied=is_applied)

    assert answers() == before


def test_what_was_voided_before_answers_as_it_did(asked: Asked) -> None:
    past = Past(random.Random(2))
    past.live()
    archive(asked, LAST)
    (key,) = one("SELECT key FROM usage_events WHERE archive_id IS NOT NULL AND status = 'voided' ORDER BY key")

    assert not void(TENANT, key, "again", LAST).is_new


def test_a_grant_for_old_debt_pays_what_all_of_it_was(asked: Asked) -> None:
    """What is archived in one piece is still known as debt of its time."""
    past = Past(random.Random(0))
    past.live(FIRST + timedelta(hours=1))
    for n in range(20):
        at = FIRST + timedelta(days=2 + n)
        record_usage(an_envelope(an_event("ana", [seconds(10)], key=f"debt{n}", occurred_at=at)), at)
    everything(LAST)
    archive(asked, LAST)
    (debt,) = one("SELECT debt FROM wallets WHERE customer_id = 'ana'")

    given = Grant(TENANT, "ana", "USD", Decimal(1000), "promo", "sorry", "sorry", expires_at=LAST + timedelta(days=9))
    grant(given, LAST)

    assert debt == Decimal(160)
    assert one("SELECT debt, balance FROM wallets WHERE customer_id = 'ana'") == (0, 840)


def test_a_month_that_is_being_corrected_is_left_for_the_next_run(asked: Asked) -> None:
    """Who corrects holds the period's row; what follows in that wallet's ledger waits for it, too."""
    Past(random.Random(3)).live()
    hold = """
        SELECT starts_at FROM periods WHERE customer_id = 'ana' AND starts_at = (
            SELECT min(period_start) FROM usage_events WHERE customer_id = 'ana' AND status = 'charged' AND cost > 0
        ) FOR NO KEY UPDATE
    """
    archived = "SELECT count(*) FROM usage_events WHERE customer_id = %s AND archive_id IS NOT NULL AND cost > 0"
    with psycopg.connect(settings().required("database_url")) as connection:
        (starts_at,) = connection.execute(hold).fetchone() or (None,)
        archive(asked, LAST)
        assert audit().shown == []
        assert (one(archived, "ana")[0], one(archived, "tom")[0] > 0) == (0, True)
        connection.rollback()

    archive(asked, LAST)

    assert one(archived, "ana")[0] > 0
    assert one("SELECT archive_id IS NOT NULL FROM periods WHERE customer_id = 'ana' AND starts_at = %s", starts_at)[0]
    assert entries_left() == 0
    assert audit().shown == []


def test_a_manifest_says_what_its_file_holds(asked: Asked) -> None:
    Past(random.Random(3)).live()
    done = archive(asked, LAST)

    for archived in done:
        manifest = json.loads((Path(archived.folder) / MANIFEST).read_text())
        assert [path.stat().st_mode & 0o777 for path in Path(archived.folder).iterdir()] == [0o600, 0o600]
        lines = lines_of(Path(archived.folder) / USAGE)
        costs: dict[str, Decimal] = {}
        for line in lines:
            if line["event"]["cost"]:
                currency = line["event"]["currency"]
                costs[currency] = costs.get(currency, Decimal(0)) + line["event"]["cost"]
        assert manifest["events"] == len(lines) == archived.events
        assert manifest["entries"] == sum(line["entry"] is not None for line in lines) == archived.entries
        assert manifest["tokens"] == sum(line["event"]["tokens"] for line in lines) == archived.tokens
        assert {name: Decimal(cost) for name, cost in manifest["costs"].items()} == costs
        assert (manifest["bytes"], manifest["sha256"]) == (
            archived.size_bytes,
            archived.sha256.hex() if archived.sha256 else "",
        )


def a_process(asked: Asked, **told: str) -> subprocess.Popen[bytes]:
    """Another process that archives the same."""
    script = (
        "from db import archiving as r; r.PAGE = 7\n"
        "from pathlib import Path; from datetime import datetime; from services.cycle.archiving import Asked, archive\n"
        f"archive(Asked({MONTHS}, Path({str(asked.root)!r})), datetime.fromisoformat({LAST.isoformat()!r}))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **told}
    return subprocess.Popen([sys.executable, "-c", script], env=environment, cwd=ROOT)


def test_killed_anywhere_it_goes_on(asked: Asked, fault_dir: Path) -> None:
    """SIGKILL at each point, one run after the other; then a run to the end, and nothing is lost."""
    Past(random.Random(4)).live()
    before = answers()
    for point in POINTS:
        (fault_dir / f"archive.{point}.once").touch()
    ends: list[int] = []
    while not ends or ends[-1]:
        ends.append(a_process(asked, CENTAVO_FAULT_DIR=str(fault_dir)).wait(60))
        assert audit().shown == []
        assert answers() == before

    assert ends == [-9] * len(POINTS) + [0]
    keys = [line["event"]["key"] for line in files(asked)]
    assert len(keys) == len(set(keys)) == one("SELECT count(*) FROM usage_events WHERE archive_id IS NOT NULL")[0]
    assert one("SELECT count(*) FROM archives WHERE finished_at IS NULL") == (0,)
    assert archive(asked, LAST) == []


def test_no_archive_is_begun_beside_another_of_the_tenant(asked: Asked) -> None:
    """Of months that share wallets each file would hold what the other is to take out: neither could be finished."""
    Past(random.Random(4)).live()
    first, second, *_ = ready(asked, LAST)

    assert archiving._begun(asked, first, LAST) is not None
    with pytest.raises(ArchiveBusy):
        archiving._begun(asked, second, LAST)

    archive(asked, LAST)
    assert ready(asked, LAST) == []
    assert audit().shown == []


def test_another_installations_archives_lie_elsewhere(asked: Asked) -> None:
    ours, theirs = (archive_files.folder_of(asked.root, "acme", "2026-10", uuid4()) for _ in range(2))

    assert ours.parent == theirs.parent
    assert ours != theirs


def test_a_name_too_long_for_a_folder_is_cut_and_stays_one_tenants(asked: Asked) -> None:
    installation = uuid4()
    folders = {archive_files.folder_of(asked.root, "é" * 100 + last, "2026-10", installation) for last in "ab"}

    assert len(folders) == 2
    for folder in folders:
        folder.mkdir(parents=True)


@pytest.mark.parametrize("seed", [2, 4, 5])
def test_two_at_once_do_no_harm(asked: Asked, seed: int) -> None:
    """One of them may find an archive in the other's hands, and says so; what it leaves, the next run does."""
    Past(random.Random(seed)).live()
    before = answers()

    both = [a_process(asked) for _ in range(2)]
    ends = [one_of_both.wait(60) for one_of_both in both]
    assert answers() == before
    archive(asked, LAST)

    assert 0 in ends
    assert audit().shown == []
    assert answers() == before
    keys = [line["event"]["key"] for line in files(asked)]
    assert len(keys) == len(set(keys)) == one("SELECT count(*) FROM usage_events WHERE archive_id IS NOT NULL")[0]


@pytest.mark.parametrize(("is_archived", "left"), [(False, 60), (True, 100)])
def test_a_grant_pays_debt_that_is_not_archived_whatever_was_paid_before(
    asked: Asked, is_archived: bool, left: int
) -> None:
    """Of a span that begins amid what is archived, that part stays unpaid; what paid it takes nothing off the rest."""
    Past(random.Random(0)).live(FIRST + timedelta(hours=1))
    for month, used in ((2, 100), (3, 50), (4, 50)):
        _use_in(month, used)
    everything(_noon(5))
    _give_from_march(60, _noon(5))
    everything(_noon(8))
    _use_in(8, 80)
    everything(LAST)
    if is_archived:
        assert archive(asked, LAST)
    assert one("SELECT debt FROM wallets WHERE customer_id = 'ana'") == (180,)

    _give_from_march(1000, LAST)

    assert one("SELECT debt FROM wallets WHERE customer_id = 'ana'") == (left,)
    assert audit().shown == []


def _noon(month: int) -> datetime:
    return datetime(2026, month, 10, 12, tzinfo=UTC)


def _use_in(month: int, cost: int) -> None:
    everything(_noon(month))
    used = an_event("ana", [seconds(cost)], key=f"in-{month}", occurred_at=_noon(month))
    record_usage(an_envelope(used), _noon(month))


def _give_from_march(amount: int, now: datetime) -> None:
    starts, ends = datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 12, 31, tzinfo=UTC)
    key = f"promo-{amount}"
    grant(Grant(TENANT, "ana", "USD", Decimal(amount), "promo", "x", key, valid_from=starts, expires_at=ends), now)


def test_a_file_that_was_changed_takes_nothing_out_of_the_tables(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its being written and its being emptied into, be it a day later."""
    Past(random.Random(5)).live()
    monkeypatch.setattr("services.cycle.archiving._verify", _stop)
    with pytest.raises(KeyboardInterrupt):
        archive(asked, LAST)
    monkeypatch.undo()
    path = next(asked.root.glob(f"*/*/*/{USAGE}"))
    text = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(text.replace(b'"tokens": 0', b'"tokens": 1')))

    with pytest.raises(ArchiveDamaged):
        archive(asked, LAST)

    assert one("SELECT count(*) FROM usage_events WHERE archive_id IS NOT NULL") == (0,)
    assert rows("SELECT * FROM checkpoints") == []


def _stop(_archive: object) -> None:
    raise KeyboardInterrupt


def test_a_ledger_that_contradicts_itself_stays(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the audit would find is not archived away."""
    Past(random.Random(6)).live()
    (wallet_id, seq) = one("SELECT wallet_id, seq FROM ledger_entries WHERE kind = 'usage' ORDER BY recorded_at")
    change = "UPDATE ledger_entries SET balance_after = balance_after + %s WHERE wallet_id = %s AND seq = %s"
    _behind_its_back(change, 1, wallet_id, seq)

    monkeypatch.setattr(rows_of, "PAGE", 1)  # of a page it is the last balance that counts
    with pytest.raises(BrokenInvariant):
        archive(asked, LAST)

    _behind_its_back(change, -1, wallet_id, seq)
    archive(asked, LAST)
    assert audit().shown == []


def _behind_its_back(statement: str, *values: object) -> None:
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute("SET session_replication_role = replica")
        connection.execute(statement.encode(), values)


def test_the_ledger_lets_go_only_what_a_checkpoint_stands_for(asked: Asked) -> None:
    """Before, meanwhile and after: the same statements are refused."""
    Past(random.Random(7)).live()
    _everything_is_refused()
    archive(asked, LAST)
    _everything_is_refused()


def _everything_is_refused() -> None:
    for statement in (
        "DELETE FROM ledger_entries WHERE kind = 'usage'",
        "DELETE FROM ledger_entries",
        "DELETE FROM ledger_entries WHERE seq = (SELECT max(seq) FROM ledger_entries)",
        "UPDATE ledger_entries SET amount = amount",
        "TRUNCATE ledger_entries",
    ):
        with (
            pytest.raises(psycopg.errors.IntegrityConstraintViolation),
            psycopg.connect(settings().required("database_url")) as connection,
        ):
            connection.execute(statement.encode())


def test_nothing_young_is_archived(asked: Asked) -> None:
    """Not by whoever asks for it, and not by months that are not closed, or not stated."""
    Past(random.Random(8)).live(FIRST + timedelta(days=100))
    with pytest.raises(Rejected, match="the last 6 months stay"):
        ready(Asked(5, asked.root), LAST)
    with pytest.raises(TenantNotFound):
        ready(Asked(MONTHS, asked.root, "nobody"), LAST)

    stated = ready(asked, LAST)

    assert {each.month for each in stated} <= {"2026-01", "2026-02", "2026-03"}
    assert one("SELECT count(*) FROM periods WHERE statement_number IS NULL AND ends_at < %s", BEFORE)[0] > 0


def test_metadata_that_is_long_when_written_out_is_archived_without_much_memory(asked: Asked) -> None:
    """Rows of before there was a bound: some bytes each in the table, megabytes in the file."""
    customers_of_all_kinds()
    for customer, items in (("ana", [seconds(1)]), ("bob", [tokens(1)])):
        events = [an_event(customer, items, key=f"{customer}{n}", occurred_at=FIRST) for n in range(12)]
        record_usage(an_envelope(*events), FIRST)
    everything(LAST)
    numbers = ",".join(["1e131071"] * 30)
    with psycopg.connect(settings().required("database_url")) as connection:
        connection.execute(
            "UPDATE usage_events SET metadata = %s::jsonb WHERE right(key, 1) <> '3'", (f'{{"a":[{numbers}]}}',)
        )
    tracemalloc.start()

    archive(asked, LAST)

    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 30e6
    lines = files(asked)
    assert [line["event"]["key"] for line in lines[:12]] == [f"ana{n}" for n in range(12)]
    assert {line["event"]["key"] for line in lines[12:]} == {f"bob{n}" for n in range(12)}
    assert all(line["event"]["metadata"] == {"a": [Decimal("1e131071")] * 30} for line in lines[4:12])
    assert [line["entry"] is None for line in lines] == [False] * 12 + [True] * 12
    assert audit().shown == []
