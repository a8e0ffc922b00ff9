"""How Alembic reaches the database: by the URL it is handed, in one transaction, one migrator at a time."""

from alembic import context
from sqlalchemy import text

from db.schema import metadata
from db.session import make_engine

#: Any two migrators take the same lock; the number only has to be ours.
MIGRATION_LOCK = 7_226_274_486


def run() -> None:
    engine = make_engine(context.config.attributes["database_url"], limits=False)
    try:
        with engine.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": MIGRATION_LOCK})
            context.configure(connection=connection, target_metadata=metadata, transaction_per_migration=False)
            context.run_migrations()
    finally:
        engine.dispose()


run()
