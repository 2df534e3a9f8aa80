"""One simulator, for whoever wants to look at it or to sync with it by hand."""

import json
import sys
import threading

from tests.sandbox import create


def serve(name: str, port: int) -> None:
    """Starts the simulator of a connector's source, prints a configuration for it, and ends at
    Ctrl-C. ``port`` 0 takes any that is free.

    Raises SystemExit with a sentence if the port cannot be opened.
    """
    try:
        simulator = create(name).start(port)
    except OSError as error:
        sys.exit(f"Port {port} cannot be opened: {error.strerror}")
    try:
        print(f"{name} listens at {simulator.url}. Ctrl-C ends it.")
        print(f"connectors/{name}/configuration.local.json for it:")
        print(json.dumps(simulator.configuration(), indent=2), flush=True)
        threading.Event().wait()
    except KeyboardInterrupt:
        simulator.stop()
