"""A customer whose wallets somebody holds, and one for whom Postgres takes too long."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from config.settings import settings
from db import session

HOLD = b"SELECT FROM wallets WHERE customer_id = 'held' FOR NO KEY UPDATE"

SLOW = """
CREATE FUNCTION take_long() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN IF NEW.customer_id = 'slow' THEN PERFORM pg_sleep(30); END IF; RETURN NEW; END $$;
CREATE TRIGGER take_long BEFORE INSERT OR UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION take_long();
"""


def impatient(patch: pytest.MonkeyPatch) -> None:
    """Let whoever waits for a lock, or for a statement, give up soon."""
    patch.setattr(session, "LIMITS", session.LIMITS | {"lock_timeout": "50ms", "statement_timeout": "2s"})
    session.close()


@contextmanager
def held() -> Iterator[None]:
    """Hold the wallets of the customer `held`, as a month that is rated again does."""
    with psycopg.connect(settings().required("database_url")) as holder:
        assert holder.execute(HOLD).rowcount > 0
        yield
        holder.rollback()


@contextmanager
def slow(table: str) -> Iterator[None]:
    """Let rows of the customer `slow` take longer than a statement may."""
    with psycopg.connect(settings().required("database_url"), autocommit=True) as owner:
        owner.execute(SLOW.format(table=table).encode())
        yield
        owner.execute("DROP FUNCTION take_long CASCADE")
