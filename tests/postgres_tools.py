"""PostgreSQL's own programs, and statements, as a person who runs a server uses them."""

import subprocess

import psycopg
from psycopg.conninfo import conninfo_to_dict

from sandbox.postgres import PostgresServer
from sandbox.postgres_files import binaries, system_user


def administered(server: PostgresServer, *statements: str) -> None:
    """Say so as the superuser, each in a transaction of its own."""
    with psycopg.connect(server.uri(), autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def postgres_command(server: PostgresServer, program: str, *arguments: str) -> list[str]:
    """How a program is called that speaks to a server; as whom, its arguments say."""
    at = conninfo_to_dict(server.uri())
    return [str(binaries(system_user()) / program), f"--host={at['host']}", f"--port={at['port']}", *arguments]


def postgres_tool(
    server: PostgresServer, program: str, *arguments: str, given: bytes = b""
) -> "subprocess.CompletedProcess[bytes]":
    """Call it with something to read, and see what it wrote."""
    return subprocess.run(
        postgres_command(server, program, *arguments),
        input=given,
        capture_output=True,
        check=False,
        cwd="/",
        user=system_user(),
    )
