"""The tables, as SQLAlchemy describes them. The migrations build the same; a test holds the two together."""

from db.schema import archiving, auditing, collecting, metering, months, sql_face
from db.schema.base import metadata

__all__ = ["archiving", "auditing", "collecting", "metadata", "metering", "months", "sql_face"]
