"""The role under which the audit reads: it may SELECT from every table, and nothing else.

It is made once for a whole cluster, and rights are given to it by the role `pg_read_all_data`, not table by table: so
new tables need nothing, and a dump names no role that the cluster it is restored into may lack.
"""

import psycopg

from billing.errors import AuditRefused
from db.session import Connection

AUDIT_ROLE = "centavo_audit"

#: Any two makers take the same lock; the number only has to be ours.
_ROLE_LOCK = 7_226_274_487

#: What a person runs who may make roles, where the database's own user may not.
MAKE_ROLE = f"CREATE ROLE {AUDIT_ROLE} NOLOGIN; GRANT pg_read_all_data TO {AUDIT_ROLE}; GRANT {AUDIT_ROLE} TO "

_IS_READY = """
SELECT pg_has_role(r.oid, 'pg_read_all_data', 'USAGE') AND pg_has_role(r.oid, 'SET')
FROM pg_roles r WHERE r.rolname = %s
"""

# What a member could become counts as well: nothing keeps it from saying SET ROLE.
_MAY_WRITE = """
SELECT r.rolname FROM pg_roles r
WHERE pg_has_role(current_user, r.oid, 'MEMBER') AND (
    r.rolsuper OR r.rolcreaterole OR has_schema_privilege(r.oid, current_schema(), 'CREATE') OR EXISTS (
        SELECT FROM pg_class c WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND (
            has_table_privilege(r.oid, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE')
            OR has_any_column_privilege(r.oid, c.oid, 'INSERT, UPDATE')
        )
    )
) ORDER BY r.rolname LIMIT 1
"""


def make_role(connection: Connection) -> bool:
    """See to it that there is the role, and that we may take it on; False when we may not make one."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ROLE_LOCK,))
    if is_ready(connection):
        return True
    try:
        # Others may make it at this moment from another database of the cluster, where the lock is another.
        with connection.transaction():
            if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (AUDIT_ROLE,)).rowcount == 0:
                connection.execute(f"CREATE ROLE {AUDIT_ROLE} NOLOGIN".encode())
            connection.execute(f"GRANT pg_read_all_data TO {AUDIT_ROLE}; GRANT {AUDIT_ROLE} TO CURRENT_USER".encode())
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UniqueViolation, psycopg.errors.InternalError):
        return is_ready(connection)
    return True


def is_ready(connection: Connection) -> bool:
    """Whether the role is there, may read everything, and may be taken on by us."""
    row = connection.execute(_IS_READY, (AUDIT_ROLE,)).fetchone()
    return row is not None and bool(row[0])


def take_on(connection: Connection) -> None:
    """Be that role until the transaction ends. Raises `AuditRefused` when there is none that we may be."""
    if not is_ready(connection):
        (user,) = connection.execute("SELECT quote_ident(current_user)").fetchone() or ("",)
        raise AuditRefused(
            f"there is no role {AUDIT_ROLE} that this user may take on. Run `centavo migrate` as a user that may make "
            f"roles; or have an administrator run `{MAKE_ROLE}{user}`, or set CENTAVO_AUDIT_DATABASE_URL"
        )
    connection.execute(f"SET LOCAL ROLE {AUDIT_ROLE}".encode())


def refuse_writers(connection: Connection) -> None:
    """Raises `AuditRefused` when whoever we are now could change what is to be audited."""
    row = connection.execute(_MAY_WRITE).fetchone()
    if row is not None:
        (user,) = connection.execute("SELECT current_user").fetchone() or ("",)
        more = "" if row[0] == user else f", as the role {row[0]}"
        raise AuditRefused(
            f"the role {user} could write{more}: an audit reads under a role that can't. Let the user of "
            "CENTAVO_AUDIT_DATABASE_URL have pg_read_all_data and no more, or leave that setting out"
        )
