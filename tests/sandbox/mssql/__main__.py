"""`python -m tests.sandbox.mssql`: the simulator alone, with the seeded EHR database."""

from __future__ import annotations

import argparse
import signal
import sys
import threading

from tests.sandbox.mssql.seed import seed_ehr
from tests.sandbox.mssql.server import ENCRYPTION, MssqlSandbox
from tests.sandbox.mssql.tls import KINDS


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.sandbox.mssql", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--patients", type=int, default=1000, help="about 12 rows for each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--encryption", choices=ENCRYPTION, default="supported")
    parser.add_argument("--certificate", choices=KINDS, default="valid")
    chosen = parser.parse_args(arguments)
    server = MssqlSandbox(encryption=chosen.encryption, certificate=chosen.certificate)
    server.port = chosen.port
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with server:
        seeded = seed_ehr(server, patients=chosen.patients, seed=chosen.seed)
        lines = [
            f"host      {server.host}",
            f"port      {server.port}",
            f"database  {server.database}",
            f"user      {server.user}",
            f"password  {server.password}",
            f"CA file   {server.ca_file()}",
            *(f"table     {name}: {count} rows" for name, count in seeded.rows.items()),
            "Ctrl-C ends it.",
        ]
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
        ended.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
