"""Runs generated schedules for minutes: `python -m tests.soak [CONNECTOR ...] --minutes N`."""

import argparse
import faulthandler
import os
import random
import shlex
import sys
import threading
import time
from collections import Counter

from fivetran_connector_sdk import Logging
from fivetran_connector_sdk_common import constants
from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.connectors import tds_responses
from tests.sandbox import names

from . import schedules

AT_ONCE = 10  # schedules of one connector before those of the next one
LONGEST = 60  # seconds that a schedule may take
RESPONSES = 400  # of SQL Server, in a round: about 10,000 rows
RESPONSE = "response"  # that is read by the driver and by the connector; in place of a schedule
RESUME = "resume"  # from every state that two syncs of a form write; in place of a schedule


def failure(name: str, number: int, tally: Counter[str]) -> tuple[list[str], Exception] | None:
    """A failing schedule, shrunk, and its error, of the schedules that are drawn from ``number``;
    None if all pass."""
    last: list[str] = []

    @seed(number)
    @settings(
        max_examples=AT_ONCE,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        deadline=None,
        database=None,
        print_blob=False,
    )
    @given(
        schedules.schedules(name)
        | schedules.hostile_schedules(name)
        | schedules.broken_state_schedules()
    )
    def check(steps: list[str]) -> None:
        last[:] = steps
        watch = threading.Timer(LONGEST, _end, [name, steps])
        watch.start()
        try:
            schedules.run(name, steps, tally)
        finally:
            watch.cancel()

    try:
        check()
        last[:] = [f"{RESUME} {number % 1_000}"]
        schedules.resume(name, number % 1_000, every=True)
        for response in range(number, number + RESPONSES if name == "mssql_ehi" else number):
            last[:] = [f"{RESPONSE} {response}"]
            tally["rows decoded"] += tds_responses.compare(response)
    except Exception as error:
        return list(last), error
    return None


def _end(name: str, steps: list[str]) -> None:
    """Ends the process, since a hang is a failure, too."""
    print(f"\n{name}: it hangs\n  {_replay(name, steps)}", flush=True)
    faulthandler.dump_traceback()
    os._exit(2)


def _replay(name: str, steps: list[str]) -> str:
    return f"python -m tests.soak {name} --replay {shlex.quote('; '.join(steps))}"


def soak(connectors: list[str], minutes: float, number: int) -> int:
    """Prints each failure, and the counts at the end; returns the number of failures."""
    draw, tally, failures = random.Random(number), Counter[str](), 0
    began, spent = time.monotonic(), time.process_time()
    print(f"seed {number}: {', '.join(connectors)}, {minutes:g} minutes", flush=True)
    while time.monotonic() - began < minutes * 60:
        for name in connectors:
            found = failure(name, draw.getrandbits(32), tally)
            if found:
                steps, error = found
                failures += 1
                print(f"\n{name}: {type(error).__name__}: {error}")
                print(f"  {_replay(name, steps)}", flush=True)
            if time.monotonic() - began >= minutes * 60:
                break
    spent = time.process_time() - spent
    counts = ", ".join(f"{count} {what}" for what, count in sorted(tally.items()))
    print(f"\n{counts}; {failures} failures; {spent:.0f} s of CPU")
    return failures


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("connectors", nargs="*", choices=[*names(), []], metavar="CONNECTOR")
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32))
    parser.add_argument("--replay", metavar="STEPS", help="one schedule of the first connector")
    given = parser.parse_args()
    connectors = given.connectors or names()
    # The SDK's log, as `fivetran debug` sets it up.
    Logging.LOG_LEVEL, constants.DEBUGGING = Logging.Level.DEBUG, True
    if given.replay:
        verb, _, form = given.replay.partition(" ")
        if verb == RESUME:
            schedules.resume(connectors[0], int(form), every=True)
        elif verb == RESPONSE:
            tds_responses.compare(int(form))
        else:
            schedules.run(connectors[0], [step.strip() for step in given.replay.split(";")])
        print("the destination equals the source")
        return 0
    return soak(connectors, given.minutes, given.seed)


if __name__ == "__main__":
    sys.exit(bool(main()))
