"""Started and SIGKILLed by test_parent_death.py: boots every kind of server, prints their processes, and waits.

Arguments: a folder for the data.
"""

import json
import os
import sys
import time
from pathlib import Path

import psycopg

from sandbox.postgres import PostgresServer
from sandbox.process_tree import ProcessIdentity, descendants
from sandbox.processes import ManagedProcess
from sandbox.valkey import ValkeyServer

BUSY = "DO $$ BEGIN LOOP PERFORM 1; END LOOP; END $$"


def main(folder: Path) -> None:
    postgres = PostgresServer(folder / "pg")
    postgres.start()
    valkey = ValkeyServer(folder / "valkey")
    valkey.start()
    worker = start_celery(valkey.url, folder)
    # A backend that computes notices nothing by itself, and neither does our fork that holds our pipes.
    busy = psycopg.connect(postgres.uri())
    busy.pgconn.send_query(BUSY.encode())
    bystander = os.fork()
    if bystander == 0:
        time.sleep(120)
        os._exit(0)
    started = [postgres.process, valkey.process, worker]
    tree = [pid for one in started for pid in (one.pid, *(below.pid for below in descendants(one.pid)))]
    processes = [ProcessIdentity.of(pid) for pid in tree]
    report = {"tree": [(one.pid, one.began_at) for one in processes], "bystander": bystander}
    print(json.dumps(report), flush=True)  # noqa: T201
    time.sleep(120)


def start_celery(broker_url: str, folder: Path) -> ManagedProcess:
    options = ["--concurrency=2", "--pool=prefork", "--loglevel=INFO", "--without-gossip", "--without-mingle"]
    command = [sys.executable, "-m", "celery", "--broker", broker_url, "worker", *options]
    worker = ManagedProcess.start("Celery", command, folder / "celery.log", cwd=folder)
    worker.wait_ready(lambda: " ready." in worker.log_tail(), 60)
    return worker


if __name__ == "__main__":
    main(Path(sys.argv[1]))
