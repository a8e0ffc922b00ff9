"""`python -m sandbox.stripe_double --port 0 --ready-file PATH`: serve the double until SIGTERM."""

import argparse
import asyncio
import sys
from contextlib import suppress
from pathlib import Path

from sandbox.stripe_double.app import StripeDouble
from sandbox.stripe_double.server import LOOPBACK, NotLoopback, Server, base_url, bind


def main() -> None:
    asked = _arguments()
    try:
        listening = bind(asked.host, asked.port)
    except (NotLoopback, OSError) as error:
        sys.exit(f"The Stripe double can't serve {asked.host}:{asked.port}: {error}")
    url = base_url(listening)

    def announce() -> None:
        sys.stdout.write(f"A double of Stripe, not Stripe: no money moves. Serving {url}\n")
        sys.stdout.flush()
        if asked.ready_file:
            _write_whole(asked.ready_file, url)

    with suppress(KeyboardInterrupt):
        asyncio.run(Server(StripeDouble(), announce).serve([listening]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m sandbox.stripe_double", description=__doc__)
    parser.add_argument("--host", default=LOOPBACK, help="a loopback address")
    parser.add_argument("--port", type=int, default=0, help="0 picks a free one")
    parser.add_argument("--ready-file", type=Path, help="where to write the base URL once it serves")
    return parser.parse_args()


def _write_whole(path: Path, text: str) -> None:
    """Write so that whoever waits for the file never reads half of it."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)


if __name__ == "__main__":
    main()
