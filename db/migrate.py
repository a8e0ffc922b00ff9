"""Bring a database to the newest schema, with Alembic."""

from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from billing.errors import Rejected
from db import api_role, audit_role
from db.session import make_engine

MIGRATIONS = Path(__file__).parent / "migrations"


def migrate(database_url: str) -> str:
    """Run every migration that is missing, in order; the revision that the database then has.

    Where this user may make roles, the audit's and the API's are there afterwards, too: see `db.audit_role` and
    `db.api_role`. Raises `Rejected` where the database can't hold every text.
    """
    with psycopg.connect(database_url) as connection:
        _refuse_other_alphabets(connection)
    command.upgrade(_config(database_url), "head")
    with psycopg.connect(database_url) as connection:
        audit_role.make_role(connection)
        api_role.make_role(connection)
    return head()


def _refuse_other_alphabets(connection: psycopg.Connection) -> None:
    encoding = connection.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise Rejected(
            f"the database {connection.info.dbname} keeps text as {encoding}, which has no room for every name; make "
            f"one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )


def head() -> str:
    """The newest revision there is."""
    newest = ScriptDirectory.from_config(_config("")).get_current_head()
    assert newest is not None
    return newest


def current(database_url: str) -> str | None:
    """The revision that a database has, or None for an empty one."""
    engine = make_engine(database_url, limits=False)
    try:
        with engine.connect() as connection:
            return MigrationContext.configure(connection).get_current_revision()
    finally:
        engine.dispose()


def _config(database_url: str) -> Config:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["database_url"] = database_url
    return config
