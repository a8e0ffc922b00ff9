"""Connections and transactions. The only place that commits.

A transaction is a function of a psycopg connection: it may run again when Postgres asks for that (deadlock,
serialisation, a lock that took too long), so it must have no effect but on rows.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TypeVar

import psycopg
from psycopg import errors
from psycopg.conninfo import conninfo_to_dict
from psycopg.pq import TransactionStatus
from sqlalchemy import Engine, create_engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import QueuePool
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from billing.errors import DatabaseBusy, DatabaseSlow, DatabaseUnavailable, OutOfScope
from config.settings import settings
from db.scope import stand_in, take_on, tenant

Connection = psycopg.Connection[tuple[object, ...]]
T = TypeVar("T")

#: A statement, a lock or an idle transaction that takes longer is given up, and the transaction runs again.
LIMITS = {
    "statement_timeout": "10s",
    "lock_timeout": "2s",
    "idle_in_transaction_session_timeout": "15s",
    "transaction_timeout": "30s",
}
NO_LIMITS = dict.fromkeys(LIMITS, "0")
#: Whatever the database's owner has set for everybody: by these the transactions are written, and values are read.
ALWAYS = {
    "timezone": "UTC",
    "default_transaction_isolation": r"read\ committed",
    # A message is acknowledged, and its receipt given, once its usage is committed: it must be there after a crash.
    "synchronous_commit": "on",
    "row_security": "on",
    "datestyle": "ISO",
    "intervalstyle": "postgres",
    "array_nulls": "on",
}
#: By name, since "$user" means another schema for whoever runs as another role.
_PIN = "SELECT set_config('search_path', quote_ident(s), false) FROM current_schema() AS s WHERE s IS NOT NULL"
TRIES = 6
#: A lock that stays taken is waited for so often by a part of some work, where another part can go on meanwhile.
LOCK_TRIES_OF_PARTS = 2


class Stale(Exception):
    """What was read before the lock no longer holds: run the transaction again."""


_AGAIN = (
    errors.SerializationFailure,
    errors.DeadlockDetected,
    errors.LockNotAvailable,
    # A migration has changed what a statement was prepared for. With the transaction, it is forgotten.
    errors.FeatureNotSupported,
    Stale,
)

#: Longer than `LIMITS` allow.
_SLOW = (errors.QueryCanceled, errors.TransactionTimeout)

#: Not our mistake and not the input's: Postgres, the disk or the way to it. Waiting is right.
_AWAY = (
    *_SLOW,
    psycopg.OperationalError,
    # This process stood still.
    errors.IdleInTransactionSessionTimeout,
    errors.ReadOnlySqlTransaction,
    errors.InsufficientResources,
    errors.OperatorIntervention,
    errors.SystemError,
    # A table or a right that is not there yet: a migration that has not run. Parking would be wrong.
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.InsufficientPrivilege,
)

# One for the life of the process: each holds itself in a cycle, and one per transaction is memory that comes back late.
_retrying = Retrying(
    retry=retry_if_exception_type(_AGAIN),
    stop=stop_after_attempt(TRIES),
    wait=wait_random_exponential(multiplier=0.02, max=1),
    reraise=True,
)


def when_lost(forget_read: Callable[[], None]) -> None:
    """Call this whenever connections were lost: what comes back may be a database of an earlier time, or another.

    Whoever keeps what was read of it, and compares revisions, would find numbers that have been given out twice.
    """
    _forgetting.append(forget_read)


@lru_cache(maxsize=1)
def engine() -> Engine:
    """This process's connections: as many as it was allowed, and one more for a look beside them."""
    return make_engine(settings().required("database_url"), connections=_allowed["connections"])


@lru_cache(maxsize=1)
def asking_engine() -> Engine:
    """This process's connections for questions: as many again, each asked one statement at a time."""
    return make_engine(settings().required("database_url"), connections=_allowed["connections"], resets=False)


_allowed = {"connections": 1}
_forgetting: list[Callable[[], None]] = []
#: In whose scope a connection stands that questions are asked on.
_HELD = "scope"


def allow(connections: int) -> None:
    """Let this process keep so many connections: one, unless it works in several threads."""
    _allowed["connections"] = connections
    close()


@lru_cache(maxsize=1)
def audit_engine() -> Engine:
    """As `engine`, under the audit's own address where there is one; a standby that only reads will do."""
    chosen = settings()
    if chosen.audit_database_url is None:
        return engine()
    return make_engine(chosen.audit_database_url.get_secret_value(), writes=False)


def make_engine(
    url: str, *, limits: bool = True, writes: bool = True, connections: int = 1, resets: bool = True
) -> Engine:
    """An engine for whatever psycopg takes as an address, with the time limits of the usage path unless told otherwise.

    What the address says of `options` holds where nothing else is relied on: ours come after them.
    Whoever sees to it that a connection that is given back has no transaction open need not have it reset.
    """
    return create_engine(
        "postgresql+psycopg://",
        creator=partial(_connected, url, LIMITS if limits else NO_LIMITS, writes),
        poolclass=QueuePool,
        pool_size=connections,
        max_overflow=1,
        pool_reset_on_return="rollback" if resets else None,
    )


def _connected(url: str, limits: Mapping[str, str], writes: bool) -> Connection:
    """A connection that stays with the schema it comes to, whoever it is to be then."""
    said = conninfo_to_dict(url)
    ours = " ".join(f"-c {name}={value}" for name, value in {**limits, **ALWAYS}.items())
    connection: Connection = psycopg.connect(
        url,
        options=f"{said.get('options') or ''} {ours}",
        client_encoding="utf8",  # as `db.arrays` writes text, whatever the database's own is
        connect_timeout=said.get("connect_timeout") or 5,
        tcp_user_timeout=15_000,
        target_session_attrs="read-write" if writes else "any",
        prepare_threshold=1,
        application_name=said.get("application_name") or "centavo",
    )
    connection.execute(_PIN)
    connection.commit()
    return connection


def forget() -> None:
    """After a fork: the parent's connections are not ours, and are not closed either."""
    for each in (audit_engine, asking_engine, engine):
        if each.cache_info().currsize:
            each().dispose(close=False)
            each.cache_clear()


def close() -> None:
    """Close this process's connections."""
    for each in (audit_engine, asking_engine, engine):
        if each.cache_info().currsize:
            each().dispose()
            each.cache_clear()


@contextmanager
def transaction(through: Callable[[], Engine] = engine) -> Iterator[Connection]:
    """One transaction on one connection: commits at the end, or rolls back and raises.

    It runs for whom `db.scope` says; what belongs to others is not there, and writing it raises `OutOfScope`.
    Raises `DatabaseUnavailable` when Postgres is away or can't work; then nothing was kept, or, when the
    connection broke during the commit itself, perhaps everything: whoever retries must be idempotent.
    """
    try:
        with through().connect() as pooled:
            connection = pooled.connection.driver_connection
            assert connection is not None
            try:
                take_on(connection)
                yield connection
                pooled.connection.commit()
            except BaseException:
                if not _is_rolled_back(connection):
                    # The pool must not try it again: it would report an outage where someone said stop.
                    pooled.invalidate()
                raise
    except _AGAIN:
        raise
    except _AWAY as error:
        raise _away(error, through) from error
    except DBAPIError as error:
        _drop_connections(through)
        raise DatabaseUnavailable(_said(error)) from error


def in_transaction(
    work: Callable[[Connection], T], through: Callable[[], Engine] = engine, *, lock_tries: int = TRIES
) -> T:
    """Run `work` in a transaction, again if Postgres asks for it, a bounded number of times.

    Raises `DatabaseUnavailable` when it still can't: the caller waits, as for any other outage; `DatabaseBusy` where
    only the rows that it needs are held by somebody. A lock that stays taken is tried `lock_tries` times.
    """
    locked_out = 0

    def once() -> T:
        nonlocal locked_out
        try:
            return _once(work, through)
        except errors.LockNotAvailable as error:
            locked_out += 1
            if locked_out < lock_tries:
                raise
            raise DatabaseBusy(f"gave up after {locked_out} tries: {_said(error)}") from error

    try:
        result: T = _retrying(once)
    except errors.DeadlockDetected as error:
        raise DatabaseBusy(f"gave up after {TRIES} tries: {_said(error)}") from error
    except _AGAIN as error:
        raise DatabaseUnavailable(f"gave up after {TRIES} tries: {_said(error)}") from error
    return result


def ask(work: Callable[[Connection], T]) -> T:
    """Run `work`, which reads and takes no lock: each of its statements is a transaction of its own.

    For the questions that are asked most: with the scope kept by the connection, one costs the way to Postgres and
    back once, where a transaction goes there four times. What is seen is what a transaction would see statement by
    statement. Raises as `in_transaction`.
    """
    try:
        result: T = _retrying(_asked, work)
    except _AGAIN as error:
        raise DatabaseUnavailable(_said(error)) from error
    except _AWAY as error:
        raise _away(error, asking_engine) from error
    except DBAPIError as error:
        _drop_connections(asking_engine)
        raise DatabaseUnavailable(_said(error)) from error
    return result


def _asked(work: Callable[[Connection], T]) -> T:
    pooled = asking_engine().raw_connection()
    connection = pooled.driver_connection
    assert connection is not None
    try:
        if not connection.autocommit:  # it is new
            connection.autocommit = True
        pooled.info[_HELD] = stand_in(connection, pooled.info.pop(_HELD, None))
        return work(connection)
    except _AGAIN:
        # What it has prepared may be what fails, and goes with it.
        pooled.info.pop(_HELD, None)
        raise
    finally:
        if _HELD not in pooled.info or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            # Broken, still at it, or in nobody knows whose scope: the next question takes another.
            pooled.invalidate()
        pooled.close()


def _away(error: Exception, through: Callable[[], Engine]) -> OutOfScope | DatabaseUnavailable:
    """What an error of Postgres means: rows that are none of this tenant's, or that it can't work now."""
    if isinstance(error, errors.InsufficientPrivilege) and tenant() is not None:
        return OutOfScope(_said(error))
    _drop_connections(through)
    return DatabaseSlow(_said(error)) if isinstance(error, _SLOW) else DatabaseUnavailable(_said(error))


def _once(work: Callable[[Connection], T], through: Callable[[], Engine]) -> T:
    with transaction(through) as connection:
        return work(connection)


def _is_rolled_back(connection: Connection) -> bool:
    """Whether it can be used again: not when it broke, nor when a signal ended a statement half-way."""
    try:
        connection.rollback()
    except psycopg.Error:
        connection.close()
    return not connection.closed


def _drop_connections(through: Callable[[], Engine]) -> None:
    """A server that went away leaves broken connections behind: start from none."""
    through().dispose()
    for forget_read in _forgetting:
        forget_read()


def _said(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
