"""One simulator, for whoever wants to look at it or to sync with it by hand."""

import json
import os
import select
import signal
import sys
import time
from pathlib import Path

from tests.sandbox import create
from tests.sandbox.simulator import Simulator
from tools.paths import ROOT

_LOCAL = "http://127.0.0.1:"
_SECONDS = 0.2  # between two looks for new requests
_LARGEST_PORT = 65_535  # the server would take the rest of a larger number
_END = "calm"  # the word that ends all faults


def serve(name: str, port: int, *, write: bool = False) -> None:
    """Starts the simulator of a connector's source, prints a configuration for it and each request
    that it gets, and ends at Ctrl-C or SIGTERM. ``port`` 0 takes any that is free. ``write``: the
    configuration becomes configuration.local.json.

    Raises SystemExit with a sentence if the port cannot be opened, or if there is a
    configuration.local.json of something else.
    """
    if not 0 <= port <= _LARGEST_PORT:
        sys.exit(f"Port {port} is not one from 0 to {_LARGEST_PORT}")
    # Of what runs in the background, a shell lets no Ctrl-C through.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        simulator = create(name).start(port)
    except OSError as error:
        sys.exit(f"Port {port} cannot be opened: {error.strerror}")
    try:
        _introduce(name, simulator, write=write)
        seen, listens = 0, os.name == "posix"  # elsewhere no select waits for a terminal
        while True:
            seen = print_requests(simulator, seen)
            if not listens:
                time.sleep(_SECONDS)
            elif select.select([sys.stdin], [], [], _SECONDS)[0]:
                line = sys.stdin.readline()
                listens = line != ""  # the end of what is typed, or of a file
                if listens:
                    seen = print_requests(simulator, seen)  # those before it
                    print(obey(simulator, line.strip()), flush=True)
    except KeyboardInterrupt:
        pass
    finally:
        simulator.stop()


def obey(simulator: Simulator, word: str) -> str:
    """Does what a line asks for, and says what was done: records change, all go away, or the next
    request fails in one of the ways that the simulator knows."""
    if word in ("", "change"):
        simulator.change_something()
        return "Records were changed."
    if word == "empty":
        simulator.empty()
        return "The source is empty."
    if word == _END:
        simulator.calm()
        return "No request fails any more."
    if word in (*simulator.troubles, *simulator.refusals):
        simulator.typed(word)
        if word in simulator.lasting:
            return f"From the next request on all meet: {word}. {_END} ends that."
        return f"The next request meets: {word}."
    return f"Known are: {', '.join(words(simulator))}."


def words(simulator: Simulator) -> list[str]:
    """What ``obey`` knows."""
    return ["change", "empty", *simulator.troubles, *simulator.refusals, _END]


def _introduce(name: str, simulator: Simulator, *, write: bool) -> None:
    path = write_configuration(simulator) if write else None  # it may refuse to
    print(f"{name} listens at {simulator.url}. Ctrl-C ends it.")
    if path:
        print(
            f"{path.relative_to(ROOT)} leads to it, with invented passwords in plain text: "
            f"`make debug CONNECTOR={name}` syncs with it."
        )
    else:
        print(f"connectors/{name}/configuration.local.json for it (WRITE=1 writes it):")
        print(json.dumps(simulator.configuration(), indent=2))
    print(f"Type one of these, then Enter: {', '.join(words(simulator))}.")
    print("Requests:", flush=True)


def write_configuration(simulator: Simulator, root: Path = ROOT) -> Path:
    """Writes configuration.local.json for a simulator, and returns its path.

    Raises SystemExit with a sentence if the file is there and was not written here: it may hold
    the only copy of an account's settings.
    """
    path = root / "connectors" / simulator.name / "configuration.local.json"
    given = simulator.configuration()
    if path.exists() and not _leads_to_a_simulator(path, simulator):
        sys.exit(f"{path.relative_to(root)} is not of a simulator: move it elsewhere first")
    path.touch(mode=0o600)
    path.write_text(json.dumps(given, indent=2) + "\n", encoding="utf-8")
    return path


def _leads_to_a_simulator(path: Path, simulator: Simulator) -> bool:
    """Whether a file has the configuration of an earlier simulator: one that differs at most in
    the port and in the credentials."""
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return False
    given = simulator.configuration()
    drawn = {*simulator.addresses, *(k for k in given if given[k] in simulator.secrets())}
    return isinstance(there, dict) and all(
        str(there.get(key)).startswith(_LOCAL)
        if given.get(key, "").startswith(_LOCAL)
        else key in drawn or there.get(key) == given.get(key)
        for key in {*there, *given}
    )


def print_requests(simulator: Simulator, seen: int) -> int:
    """Prints the requests from number ``seen`` (from 0) on, as far as they have a response.
    Returns how many were seen then."""
    for request in simulator.requests[seen:]:
        line = simulator.describe(request)
        if line is None:
            break
        print(line, flush=True)
        seen += 1
    return seen
