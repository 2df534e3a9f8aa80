"""The verbs of the Makefile as one command line, for systems without make, too."""

import argparse
import pkgutil
import sys
from collections.abc import Sequence
from typing import TypeAlias

from tools.mutants import PARTS, STEPS
from tools.paths import NAMES

_Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def build_parser() -> argparse.ArgumentParser:
    """The command line. ``action`` of a parsed verb names the function that does its work, by
    module: it is imported only then, since most need the development dependencies."""
    parser = argparse.ArgumentParser(prog="python -m tools", description=__doc__)
    verbs = parser.add_subparsers(metavar="VERB", dest="verb", required=True)
    _add_verbs_of_the_repository(verbs)
    _add_verbs_of_a_connector(verbs)
    _add_deploy(verbs)
    _add_mutants(verbs)
    return parser


def _add_verbs_of_the_repository(verbs: _Verbs) -> None:
    checks = "check copies, module names, templates, lint, format, types and workflows"
    _add(verbs, "check", "tools.checks:check", checks)
    _add(verbs, "vendor", "tools.vendored:vendor", "copy shared/ into every connector")

    changes = "list the connectors that differ from a commit, as JSON"
    changed = _add(verbs, "changed", "tools.changed:print_changed", changes)
    which = "the commit to compare with; all are listed without one, or if it is unknown"
    changed.add_argument("commit", metavar="COMMIT", nargs="?", default="", help=which)

    order = "end with an error if a newer commit was deployed, or if this one is not on the branch"
    checked = _add(verbs, "check-order", "tools.changed:check_order", order)
    checked.add_argument("branch", metavar="BRANCH", help="such as origin/main")
    them = "the commits that were deployed"
    checked.add_argument("deployed", metavar="COMMIT", nargs="*", help=them)

    writes = "write a further connector, with a simulator and tests"
    new = _add(verbs, "new", "tools.new:print_new", writes)
    named = "its name: a Python name in lower case"
    new.add_argument("name", metavar="NAME", nargs="?", default="", help=named)
    listed = "its tables, with commas (default: items)"
    new.add_argument("--tables", metavar="A,B", default="", help=listed)
    paged = "number (default), token or link: how a page names the next one"
    new.add_argument("--pages", metavar="KIND", default="", help=paged)
    told = "feed (default): the source lists deletes; full: only full refreshes find them"
    new.add_argument("--deletes", metavar="KIND", default="", help=told)

    syncs = (
        "sync connectors with their simulators, before and after a change, and show what arrived"
    )
    demo = _add(verbs, "demo", "tools.demo:demo", syncs)
    some = f"some of {', '.join(NAMES)} (default: all)"
    demo.add_argument("names", metavar="CONNECTOR", nargs="*", type=_connector, help=some)
    demo.add_argument("--picture", metavar="FILE", default="", help="an SVG of what it prints")


def _add_verbs_of_a_connector(verbs: _Verbs) -> None:
    asks = "ask for the settings, and write configuration.local.json"
    _add_connector(_add(verbs, "configure", "tools.configuration:configure", asks))
    calls = "call the source with configuration.local.json"
    _add_connector(_add(verbs, "check-config", "tools.configuration:check_config", calls))
    shows = "show the tables of the last local sync"
    _add_connector(_add(verbs, "show", "tools.show:show", shows))
    tells = "print the tables as the destination will have them"
    schema = _add(verbs, "schema", "tools.schema:print_schema", tells)
    _add_connector(schema)
    forms = "text (default), dbt: sources with tests of the keys, json: the configuration's schema"
    kinds = ("text", "dbt", "json")
    schema.add_argument("--format", dest="format_", choices=kinds, default="text", help=forms)
    packs = "make the zip that is deployed, in build/"
    _add_connector(_add(verbs, "package", "tools.package:package", packs))

    syncs = "run fivetran debug with configuration.local.json"
    _add_connector(_add(verbs, "debug", "tools.debug:debug", syncs))
    forgets = "delete the state and the rows of the local syncs"
    _add_connector(_add(verbs, "reset", "tools.debug:reset", forgets))

    sandbox = _add(verbs, "sandbox", "tools.sandbox:serve", "start a simulator, until Ctrl-C")
    _add_connector(sandbox)
    port = "the port to listen on (default: any that is free)"
    sandbox.add_argument("--port", type=int, default=0, help=port)
    writes = "write the configuration for it into configuration.local.json"
    sandbox.add_argument("--write", action="store_true", help=writes)


def _add_deploy(verbs: _Verbs) -> None:
    deploy = _add(
        verbs,
        "deploy",
        "tools.deploy:deploy_from_environment",
        "deploy a connector with `fivetran deploy`",
        "The environment holds the secrets. FIVETRAN_API_KEY: the base64 of key and secret. "
        "CONNECTOR_CONFIGURATION: a configuration as JSON, to be stored with the connection; "
        "without it an existing connection keeps its own. Further options go to `fivetran deploy` "
        "as they are.",
    )
    _add_connector(deploy)
    deploy.add_argument("--destination", required=True, help="the name of the destination")
    deploy.add_argument("--connection", required=True, help="the name of the connection")
    says = "only say what would be packed, sent and changed"
    deploy.add_argument("--dry-run", action="store_true", help=says)
    deploy.add_argument(
        # For a connection that exists the command insists on it.
        "--python-version",
        default="3.14",
        help="the version of Python that runs the connector (default: %(default)s)",
    )


def _add_mutants(verbs: _Verbs) -> None:
    finds = "find small changes to the code that no test notices"
    mutants = _add(verbs, "mutants", "tools.mutants:mutants", finds)
    parts = f"what is changed, one of {', '.join(PARTS)}"
    mutants.add_argument("part", metavar="PART", choices=PARTS, help=parts)
    steps = "; ".join(f"{step}: {does}" for step, does in STEPS.items())
    mutants.add_argument("step", metavar="STEP", choices=STEPS, nargs="?", help=steps)
    mutants.add_argument("mutant", metavar="MUTANT", nargs="?", help="the name of a survivor")
    mutants.set_defaults(step="run")


def _add(
    verbs: _Verbs, name: str, action: str, summary: str, more: str = ""
) -> argparse.ArgumentParser:
    """Adds a verb whose ``action`` is a function as "module:name"; its parameters are the verb's
    arguments."""
    sentence = f"{summary[0].upper()}{summary[1:]}."
    description = f"{sentence} {more}".strip()
    # An option that is not known here, and that goes on to `fivetran deploy`, is no short form.
    parser = verbs.add_parser(name, help=summary, description=description, allow_abbrev=False)
    parser.set_defaults(action=action)
    return parser


def _add_connector(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "name", metavar="CONNECTOR", type=_connector, help=f"one of {', '.join(NAMES)}"
    )


def _connector(name: str) -> str:
    if name not in NAMES:
        raise argparse.ArgumentTypeError(f"no connector {name!r}; there are {', '.join(NAMES)}")
    return name


def main(words: Sequence[str] | None = None) -> int | None:
    """Does what the command line says, that of this process by default; returns the exit code.

    Raises SystemExit with a sentence if a verb fails, with code 2 if the usage is wrong.
    """
    parser = build_parser()
    arguments, more = parser.parse_known_args(words)
    given = vars(arguments)
    verb, action = given.pop("verb"), given.pop("action")
    if verb == "deploy":
        given["more"] = more
    elif more:
        parser.error(f"unrecognized arguments: {' '.join(more)}")
    try:
        function = pkgutil.resolve_name(action)
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed: run the Python of .venv, which `make` prepares")
    code: int | None = function(**given)
    return code


if __name__ == "__main__":
    sys.exit(main())
