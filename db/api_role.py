"""The role under which the API's transactions run: it has rights on tables, and policies say on which rows.

It is made once for a whole cluster, and its rights follow from the policies (`db.policies`): what a policy for
everybody lets through, the role may do; a table without one it can't even name. Neither is in a dump that is read where
the role is missing: `centavo migrate` makes both again.
"""

import psycopg

from db.own import TABLES, VIEWS
from db.scope import API_ROLE
from db.session import Connection

#: Any two makers take the same lock; the number only has to be ours.
_ROLE_LOCK = 7_226_274_488

#: What a person runs who may make roles, where the database's own user may not; then `centavo migrate` again.
MAKE_ROLE = f"CREATE ROLE {API_ROLE} NOLOGIN; GRANT {API_ROLE} TO "

_IS_READY = """
SELECT pg_has_role(r.oid, 'SET') AND NOT r.rolsuper AND NOT r.rolbypassrls
    AND NOT pg_has_role(r.oid, 'pg_read_all_data', 'MEMBER') AND NOT EXISTS (
        SELECT FROM pg_class c
        WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
            AND pg_has_role(r.oid, c.relowner, 'MEMBER')
    )
FROM pg_roles r WHERE r.rolname = %s
"""

#: For each table and view, what the role may do there and has no right to yet.
_LACKING = """
SELECT c.relname, string_agg(DISTINCT wanted, ', ')
FROM pg_class c
LEFT JOIN pg_policy p ON p.polrelid = c.oid AND 0 = ANY (p.polroles)
CROSS JOIN LATERAL unnest(
    (CASE WHEN c.relkind = 'v' OR p.polcmd = 'r' THEN '{SELECT}'
        WHEN p.polcmd = 'w' THEN '{UPDATE}'
        WHEN p.polcmd = '*' THEN '{SELECT,INSERT,UPDATE,DELETE}'
    END)::text[]
) AS wanted
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'v')
    AND (c.relkind <> 'v' OR 'security_invoker=true' = ANY (c.reloptions)) AND c.relname = ANY (%s)
    AND NOT has_table_privilege(%s, c.oid, wanted)
GROUP BY c.relname ORDER BY c.relname
"""

_GRANT_SCHEMA = f"""
DO $$ BEGIN
    IF NOT has_schema_privilege('{API_ROLE}', current_schema(), 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO {API_ROLE}', current_schema());
    END IF;
END $$
"""


def make_role(connection: Connection) -> bool:
    """See to it that there is the role, with its rights here; False when we may neither make nor take it on."""
    connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ROLE_LOCK,))
    if not is_ready(connection):
        try:
            # Others may make it at this moment from another database of the cluster, where the lock is another.
            with connection.transaction():
                if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (API_ROLE,)).rowcount == 0:
                    connection.execute(f"CREATE ROLE {API_ROLE} NOLOGIN".encode())
                connection.execute(f"GRANT {API_ROLE} TO CURRENT_USER".encode())
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.UniqueViolation, psycopg.errors.InternalError):
            pass
    if not is_ready(connection):
        return False
    connection.execute(_GRANT_SCHEMA.encode())
    for table, rights in connection.execute(_LACKING, ([*TABLES, *VIEWS], API_ROLE)).fetchall():
        connection.execute(f"GRANT {rights} ON {table} TO {API_ROLE}".encode())
    return True


def is_ready(connection: Connection) -> bool:
    """Whether the role is there, is held to the policies, and may be taken on by us."""
    row = connection.execute(_IS_READY, (API_ROLE,)).fetchone()
    return row is not None and bool(row[0])
