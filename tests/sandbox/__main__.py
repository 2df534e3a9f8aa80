"""`python -m tests.sandbox NAME [--port N]` runs one simulator until Ctrl-C."""

import argparse
import json
import threading

from . import create, names

parser = argparse.ArgumentParser(prog="python -m tests.sandbox", description=__doc__)
parser.add_argument("name", choices=names())
parser.add_argument("--port", type=int, default=0, help="0: any that is free")
arguments = parser.parse_args()
sandbox = create(arguments.name).start(arguments.port)
try:
    print(f"{sandbox.name} stands at {sandbox.url}. Ctrl-C ends it.")
    print(f"connectors/{sandbox.name}/configuration.local.json for it:")
    print(json.dumps(sandbox.configuration(), indent=2), flush=True)
    threading.Event().wait()
except KeyboardInterrupt:
    sandbox.stop()
