"""The naive worker's process: `python -m bench.naive --database postgresql://… --broker redis://…`."""

import argparse
import warnings

from celery.platforms import SecurityWarning

from bench.naive.app import app
from bench.naive.worker import CHILDREN, PREFETCH_MULTIPLIER


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.naive", description="The naive usage worker.")
    parser.add_argument("--database", required=True, help="Postgres URL; tables in the schema `naive`")
    parser.add_argument("--broker", required=True, help="broker URL, as Celery takes it")
    parser.add_argument("--prefetch", type=int, default=PREFETCH_MULTIPLIER, help="messages per child")
    options = parser.parse_args()
    # It runs on loopback for a minute: being root, as in a container, is no news.
    warnings.simplefilter("ignore", SecurityWarning)
    app.conf.update(
        broker_url=options.broker,
        naive_database_url=options.database,
        worker_prefetch_multiplier=options.prefetch,
    )
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=prefork",
            f"--concurrency={CHILDREN}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=WARNING",
        ]
    )


if __name__ == "__main__":
    main()
