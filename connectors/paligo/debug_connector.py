"""Runs the connector against a local simulator of Paligo, through named scenarios.

    python debug_connector.py                     all of them
    python debug_connector.py rate_limit errors   some of them; --log prints the whole log

Each scenario is a sync with a fault and, without --once, a second sync without the fault. The
script prints the requests, the waits (which are skipped), the warnings, and the rows of the
tables. The exit status is 1 if a scenario did not end as it should.
"""

import argparse
import re
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from pkgutil import resolve_name
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the repository, for its sandbox

# By name: the SDK's check of dependencies looks each imported name up at the package index.
assert_equal_to_source: Any = resolve_name("tests.compare:assert_equal_to_source")
Project: Any = resolve_name("tests.sandbox.fivetran:Project")
Paligo: Any = resolve_name("tests.sandbox.paligo:Paligo")

_SHOWN = re.compile(r"WARNING.* connector |\bError: ")


@dataclass(frozen=True)
class Scenario:
    """``trouble`` causes the fault before the sync; ``fails``: whether the sync should fail."""

    about: str
    trouble: Callable[[Any], object]
    fails: bool = False
    settings: dict[str, str] = field(default_factory=dict)


def _rate_limit(paligo: Any) -> None:
    paligo.limit = 2


def _errors(paligo: Any) -> None:
    paligo.fault("/api/v2/users", status=503)
    paligo.fault("/api/v2/taxonomies", skip=1, cut=True)
    paligo.fault("/api/v2/assignments", skip=2, times=2, drop=True)


def _outage(paligo: Any) -> None:
    paligo.fault("/api/v2/assignments", skip=2, times=None, status=500)


def _expired(paligo: Any) -> None:
    paligo.fault("/api/v2/taxonomies", act=paligo.replace_api_key)


def _slow(paligo: Any) -> None:
    # The only real wait: half a second longer than the timeout.
    paligo.fault("/api/v2/taxonomies", act=lambda: time.sleep(1.5))


def _html(paligo: Any) -> None:
    page = {"status": 200, "body": "<!DOCTYPE html>", "headers": {"Content-Type": "text/html"}}
    paligo.fault("/api/v2/", times=None, **page)


SCENARIOS = {
    "normal": Scenario("nothing goes wrong", lambda paligo: None),
    "rate_limit": Scenario("the limit per minute is met again and again", _rate_limit),
    "errors": Scenario("a 503, a cut response and two lost connections", _errors),
    "outage": Scenario("assignments fail from their third request on", _outage, fails=True),
    "expired": Scenario("the API key is replaced during the sync", _expired, fails=True),
    "slow": Scenario(
        "a response takes longer than the timeout",
        _slow,
        settings={"request_timeout_seconds": "1"},
    ),
    "html": Scenario("base_url leads to HTML pages", _html, fails=True),
}


def run(name: str, *, once: bool = False, log: bool = False) -> bool:
    """Runs a scenario and prints what happened. Returns whether it ended as it should."""
    scenario, waits = SCENARIOS[name], list[float]()
    print(f"\n{name}: {scenario.about}")
    with (
        tempfile.TemporaryDirectory() as folder,
        Paligo() as paligo,
        mock.patch("shared.rest.pause", lambda closed, seconds: waits.append(seconds)),
    ):
        project, configuration = Project("paligo", Path(folder)), paligo.configuration()
        scenario.trouble(paligo)
        result = project.sync({**configuration, **scenario.settings})
        as_expected = bool(result.code) == scenario.fails
        _report("sync with the fault", result, paligo, waits, log=log)
        if not once:
            paligo.faults.clear()
            paligo.limit = None
            paligo.requests.clear()
            waits.clear()
            result = project.sync(paligo.configuration())
            as_expected &= not result.code
            _report("sync without it", result, paligo, waits, log=log)
        if result.code == 0:
            as_expected &= _equals(project, paligo)
    print(f"  {'as it should be' if as_expected else 'NOT AS IT SHOULD BE'}")
    return as_expected


def _report(title: str, result: Any, paligo: Any, waits: list[float], *, log: bool) -> None:
    lists = [request.path.rpartition("/")[2] for request in paligo.requests]
    asked = ", ".join(f"{lists.count(name)} of {name}" for name in dict.fromkeys(lists))
    ended = f"failed after {result.seconds:.1f} s" if result.code else f"{result.seconds:.1f} s"
    print(f"  {title}: {ended}; requests: {asked}")
    print(f"    waits: {', '.join(f'{wait:.1f} s' for wait in waits) or 'none'}")
    for line in result.output.splitlines():
        if log or _SHOWN.search(line):
            print(f"    {line.strip()}")
    counts = ", ".join(f"{count} {name.lower()}" for name, count in result.counts.items())
    print(f"    operations: {counts or 'none counted'}")


def _equals(project: Any, paligo: Any) -> bool:
    for table in paligo.expected():
        print(f"    {table}: {len(project.rows(table))} rows")
    try:
        assert_equal_to_source(project, paligo)
    except AssertionError as error:
        print(f"    the destination differs from the source: {error}")
        return False
    print("    the destination equals the source")
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    listed = ", ".join(SCENARIOS)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help=f"one of {listed}")
    parser.add_argument("--once", action="store_true", help="only the sync with the fault")
    parser.add_argument("--log", action="store_true", help="print the connector's whole log")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - SCENARIOS.keys():
        parser.error(f"no such scenario: {', '.join(sorted(unknown))} (there are {listed})")
    names = arguments.names or list(SCENARIOS)
    results = [run(name, once=arguments.once, log=arguments.log) for name in names]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
