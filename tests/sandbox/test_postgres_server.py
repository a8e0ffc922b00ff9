"""The PostgreSQL of the sandbox keeps what was committed, wherever it lies and however it is stopped."""

import os
import stat
import subprocess
from contextlib import closing, suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from sandbox.postgres import PostgresServer, StopMode
from sandbox.postgres_files import copied_for, installed_programs, system_user
from sandbox.process_tree import ProcessIdentity, descendants
from sandbox.processes import ProcessEnded, await_condition

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="concerns running under root")


def run(uri: str, *statements: str) -> None:
    with psycopg.connect(uri, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


def value(uri: str, query: str) -> object:
    with psycopg.connect(uri) as connection:
        row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


@pytest.mark.parametrize("mode", ["smart", "fast", "immediate"])
def test_a_restart_keeps_the_address_and_what_was_committed(postgres: PostgresServer, mode: StopMode) -> None:
    uri, pid = postgres.uri(), postgres.process.pid
    run(uri, "CREATE TABLE things (name text)", "INSERT INTO things VALUES ('kept')")

    postgres.restart(mode)

    assert postgres.uri() == uri
    assert postgres.process.pid != pid
    assert value(uri, "SELECT string_agg(name, ',') FROM things") == "kept"


def test_a_crash_takes_only_what_was_not_committed(postgres: PostgresServer) -> None:
    run(postgres.uri(), "CREATE TABLE things (name text)", "INSERT INTO things VALUES ('kept')")
    with closing(psycopg.connect(postgres.uri())) as open_transaction:
        open_transaction.execute("INSERT INTO things VALUES ('lost')")
        postgres.stop("immediate")

    postgres.start()

    assert value(postgres.uri(), "SELECT string_agg(name, ',') FROM things") == "kept"
    assert "was not properly shut down" in postgres.process.log_tail(lines=50)


def test_a_kill_takes_the_backends_too_and_the_next_start_recovers(postgres: PostgresServer) -> None:
    run(postgres.uri(), "CREATE TABLE things (name text)", "INSERT INTO things VALUES ('kept')")
    with closing(psycopg.connect(postgres.uri())) as busy:
        busy.pgconn.send_query(b"DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$")
        backends = []
        for backend in descendants(postgres.process.pid):
            with suppress(psutil.NoSuchProcess):  # that of a connection which was just closed
                backends.append(ProcessIdentity.of(backend.pid))
        postgres.kill()

    assert len(backends) > 3
    assert [backend for backend in backends if backend.alive] == []
    postgres.start()
    assert value(postgres.uri(), "SELECT string_agg(name, ',') FROM things") == "kept"


def test_a_server_that_crashed_by_itself_can_be_started_again(postgres: PostgresServer) -> None:
    with closing(psycopg.connect(postgres.uri())) as connection, suppress(psycopg.OperationalError):
        # A superuser may run programs on the server: this one takes the postmaster down.
        connection.execute("COPY (SELECT 1) TO PROGRAM 'kill -QUIT $(head -1 postmaster.pid)'")
    await_condition(lambda: not postgres.running, 30, "the server to end")

    postgres.start()

    assert value(postgres.uri(), "SELECT 1") == 1


def test_commits_are_durable_and_no_network_is_listened_to(postgres: PostgresServer) -> None:
    names = ["fsync", "synchronous_commit", "full_page_writes", "listen_addresses", "server_encoding"]

    shown = {name: value(postgres.uri(), f"SHOW {name}") for name in names}

    assert shown == {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "listen_addresses": "",
        "server_encoding": "UTF8",
    }
    # A property of money too: text sorts as Python sorts it, so that both agree on the order of locks.
    assert value(postgres.uri(), "SELECT 'Z' < 'a' AND 'z' < 'ä'") is True


def test_several_servers_with_settings_of_their_own_run_at_once(postgres: PostgresServer, short_dir: Path) -> None:
    with PostgresServer(short_dir / "other", settings={"max_connections": "17"}) as other:
        assert value(other.uri(), "SHOW max_connections") == "17"
        assert value(postgres.uri(), "SHOW max_connections") == "100"


def test_a_database_is_cloned_from_a_template_and_dropped_under_its_sessions(postgres: PostgresServer) -> None:
    postgres.create_database("template of ours")
    run(postgres.uri("template of ours"), "CREATE TABLE things AS SELECT 42 AS answer")

    postgres.create_database("clone", template="template of ours")
    answer = value(postgres.uri("clone"), "SELECT answer FROM things")
    with psycopg.connect(postgres.uri("clone")):
        postgres.drop_database("clone")
    postgres.drop_database("clone")  # gone already is fine

    assert answer == 42
    assert value(postgres.uri(), "SELECT count(*) FROM pg_database WHERE datname = 'clone'") == 0


@pytest.mark.parametrize("name", ["d" * 120, "with space, comma and 'quote'"], ids=["long", "odd"])
def test_a_path_that_no_socket_can_have_works_all_the_same(short_dir: Path, name: str) -> None:
    server = PostgresServer(short_dir / name)
    server.start()

    server.restart("immediate")

    assert value(server.uri(), "SELECT 1") == 1
    server.destroy()
    assert not server.data_dir.exists()


def test_a_folder_that_only_we_can_enter_is_left_so_and_the_data_still_survives(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0o700)
    server = PostgresServer(private / "pg")
    server.start()
    run(server.uri(), "CREATE TABLE things AS SELECT 42 AS answer")
    server.stop()
    place = server.data_dir.resolve()

    with PostgresServer(private / "pg") as again:
        answer = value(again.uri(), "SELECT answer FROM things")

    assert answer == 42
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert server.data_dir.is_symlink() is (os.geteuid() == 0)
    again.destroy()
    assert not place.exists()
    assert not server.data_dir.is_symlink()


def test_only_its_owner_gets_as_far_as_the_socket(postgres: PostgresServer) -> None:
    (socket,) = (path for path in postgres.data_dir.glob(".s.PGSQL.*") if path.is_socket())

    assert stat.S_IMODE(postgres.data_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(socket.stat().st_mode) == 0o700


def test_an_interrupted_first_start_is_made_good(short_dir: Path) -> None:
    (short_dir / "pg").mkdir()
    server = PostgresServer(short_dir / "pg")
    server.start()
    server.stop()
    (server.data_dir / "cluster").rename(server.data_dir / "cluster-unfinished")

    server.start()

    assert value(server.uri(), "SELECT 1") == 1
    server.destroy()


def test_a_second_server_on_the_same_data_is_refused_with_postgres_own_words(postgres: PostgresServer) -> None:
    second = PostgresServer(postgres.data_dir, log_file=postgres.log_file.with_name("second.log"))

    with pytest.raises(ProcessEnded, match=r'lock file "postmaster\.pid" already exists'):
        second.start()

    assert value(postgres.uri(), "SELECT 1") == 1


@pytest.mark.parametrize("ended", [True, False], ids=["zombie", "other process"])
def test_a_lock_file_that_names_no_running_server_is_in_nobodys_way(postgres: PostgresServer, ended: bool) -> None:
    postgres.stop()
    stranger = subprocess.Popen(["sleep", "60"], user=system_user())
    identity = ProcessIdentity.of(stranger.pid)
    if ended:
        stranger.kill()
        await_condition(lambda: not identity.alive, 30, "the stranger to be a zombie")
    lock_file = postgres.data_dir / "cluster" / "postmaster.pid"
    lock_file.write_text(f"{stranger.pid}\n{lock_file.parent}\n1795196400\n5432\n\n\n0 0\nready\n")

    try:
        postgres.start()

        assert identity.alive is not ended
    finally:
        stranger.kill()
        stranger.wait()


def test_before_the_first_start_there_is_no_address(short_dir: Path) -> None:
    server = PostgresServer(short_dir / "pg")

    with pytest.raises(RuntimeError, match="no address before start"):
        server.uri()
    server.stop()  # nothing to do

    assert not server.running


@only_root
def test_programs_that_the_system_user_cannot_reach_are_copied_once(short_dir: Path) -> None:
    user = system_user()
    assert user is not None

    copy = copied_for(user, installed_programs(), short_dir)
    again = copied_for(user, installed_programs(), short_dir)

    assert (copy / "bin" / "initdb").exists()
    assert [again] == list(short_dir.iterdir())


@only_root
def test_programs_that_somebody_else_put_there_are_not_run(short_dir: Path) -> None:
    user = system_user()
    assert user is not None
    planted = copied_for(user, installed_programs(), short_dir)
    os.chown(planted, 1, 1)

    with pytest.raises(RuntimeError, match="delete the latter"):
        copied_for(user, installed_programs(), short_dir)
