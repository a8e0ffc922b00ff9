"""The tables, as SQLAlchemy describes them. The migrations build the same; a test holds the two together."""

from db.schema import access, archiving, auditing, collecting, metering, months
from db.schema.base import metadata

__all__ = ["access", "archiving", "auditing", "collecting", "metadata", "metering", "months"]
