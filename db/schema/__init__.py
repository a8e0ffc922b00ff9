"""The tables, as SQLAlchemy describes them. The migrations build the same; a test holds the two together."""

from sqlalchemy import event

from db.policies import protect
from db.schema import archiving, auditing, collecting, metering, months, sql_face
from db.schema.base import metadata

__all__ = ["archiving", "auditing", "collecting", "metadata", "metering", "months", "sql_face"]

event.listen(metadata, "after_create", lambda _, connection, **__: protect(connection))
