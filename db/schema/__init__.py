"""The tables, as SQLAlchemy describes them. The migrations build the same; a test holds the two together."""

from db.schema import collecting, metering
from db.schema.base import metadata

__all__ = ["collecting", "metadata", "metering"]
