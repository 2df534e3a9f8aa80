"""The deployment of one connector by `fivetran deploy`."""

import base64
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from tools.checks import SECRET_KEY
from tools.fivetran import stub_pipreqs
from tools.masking import masker, printed_forms
from tools.paths import command
from tools.staging import stage_connector

_ENCRYPTED = "fivetran_encrypted:"  # how `fivetran configuration` marks what it encrypts
_PLACEHOLDER = re.compile(r"<YOUR_[A-Z0-9_]*>")  # a password may look like <ABC>
_SHORTEST_VALUE = 8  # characters of a value that is masked without being a secret
_SECONDS_TO_END = 5.0  # for a command that is asked to end, before it is killed
_SIGNALS = [
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if hasattr(signal, name)
]


def deploy_from_environment(
    name: str,
    destination: str,
    connection: str,
    python_version: str,
    more: Sequence[str],
    dry_run: bool = False,
) -> int:
    """Deploys with the secrets in the environment of this process, or says what that would do.
    ``more``: further options of `fivetran deploy`. Returns and raises what `deploy` does."""
    if dry_run:
        _print_plan(name, destination, connection, python_version, more)
        return 0
    if not (destination and connection):
        sys.exit("Name the destination and the connection, as the README says under Deploy")
    options = ["--destination", destination, "--connection", connection]
    options += ["--python-version", python_version, *more]
    return deploy(name, options, dict(os.environ))


def deploy(name: str, options: list[str], environment: dict[str, str]) -> int:
    """The exit code of `fivetran deploy` on a copy of ``connectors/<name>``.

    The ``environment`` holds the secrets. FIVETRAN_API_KEY: the base64 of key and secret.
    CONNECTOR_CONFIGURATION: a configuration as JSON, to be stored with the connection; without it
    an existing connection keeps its own.

    The copy holds what is deployed and nothing else. It has no configuration.json: the command
    would store the template's placeholders in place of the connection's secrets. Raises SystemExit
    with a sentence if something is missing.
    """
    given = _configuration(environment.get("CONNECTOR_CONFIGURATION", ""))
    key = environment.get("FIVETRAN_API_KEY", "")
    if not key:
        sys.exit("FIVETRAN_API_KEY is not set")
    secrets = [*_secrets_of_the_key(key), *_secrets(given)]
    if environment.get("GITHUB_ACTIONS") == "true":
        _mask_in_later_steps(secrets)
    with _private_folder() as folder:
        staged = stage_connector(name, folder)
        pinned = _read(staged / "requirements.txt")
        if given:
            path = folder / "configuration.json"
            path.touch(mode=0o600)
            path.write_text(json.dumps(given))
            options = [*options, "--configuration", str(path)]
        # --yes, for --non-interactive declines to update a connection that exists.
        code = _run(
            [command("fivetran"), "deploy", str(staged), "--yes", *options],
            _without_surprises(environment, folder),
            masker(secrets),
        )
        if _read(staged / "requirements.txt") != pinned:
            sys.exit(
                f"What was deployed is not what {name}/requirements.txt pins: deploy it again"
            )
    return code


def _print_plan(
    name: str, destination: str, connection: str, python_version: str, more: Sequence[str]
) -> None:
    """Prints what a deployment would pack, send and change, without a request: of the
    configuration its keys alone, of further options their names."""
    given = _configuration(os.environ.get("CONNECTOR_CONFIGURATION", ""))
    with tempfile.TemporaryDirectory() as folder:
        staged = stage_connector(name, Path(folder))
        files = {path: path.stat().st_size for path in staged.rglob("*") if path.is_file()}
        listed = {path.relative_to(staged).as_posix(): size for path, size in files.items()}
    print("Would be packed, with the setup form:")
    for path in sorted(listed):
        print(f"  {path} ({listed[path]:,} bytes)")
    keys = ", ".join(given) or "none, as CONNECTOR_CONFIGURATION is not set"
    options = [word.partition("=")[0] for word in more if word.startswith("-")]
    print(
        f"Would be sent: the package, Python {python_version}, {', '.join(options)}".rstrip(", ")
    )
    print(f"Keys of the configuration that would be sent: {keys}")
    where = f"{connection or '(not named)'} in {destination or '(not named)'}"
    print(f"Would be changed: the connection {where}. One that exists gets the new package, and")
    print(f"{'the new' if given else 'keeps its'} configuration; a new one is created, paused.")
    if not given:
        print("A new one needs CONNECTOR_CONFIGURATION.")


@contextlib.contextmanager
def _private_folder() -> Iterator[Path]:
    """A temporary folder that is removed, whatever ends this process but a kill: a signal raises
    SystemExit with 128 and its number, and no second one interrupts the removal."""
    before = {number: signal.getsignal(number) or signal.SIG_DFL for number in _SIGNALS}
    # What is ignored stays so: `nohup` asks for it.
    heard = [number for number in _SIGNALS if before[number] is not signal.SIG_IGN]

    def ignore() -> None:
        for number in heard:
            signal.signal(number, signal.SIG_IGN)

    def end(number: int, _: object) -> None:
        ignore()
        sys.exit(128 + number)

    try:
        for number in heard:
            signal.signal(number, end)
        with tempfile.TemporaryDirectory() as folder:
            try:
                yield Path(folder)
            finally:
                ignore()
    finally:
        for number in heard:
            signal.signal(number, before[number])


def _secrets(given: dict[str, str]) -> list[str]:
    """What the output must not show of a configuration: secrets however short, and all other
    values but short ones ("true", "100")."""
    return [
        value
        for key, value in given.items()
        if (SECRET_KEY.search(key) and value not in ("true", "false"))
        or len(value) >= _SHORTEST_VALUE
    ]


def _secrets_of_the_key(key: str) -> list[str]:
    """The key, its first eight characters, which the command shows, and what it is made of."""
    try:
        decoded = base64.b64decode(key, validate=True).decode()
    except ValueError:
        decoded = ""
    return [key, key[:8], decoded, decoded.partition(":")[2]]


def _mask_in_later_steps(secrets: list[str]) -> None:
    """Tells GitHub's runner to mask the secrets in this log, whoever prints them from now on."""
    for form in printed_forms(secrets):
        print(f"::add-mask::{form.replace('%', '%25')}", flush=True)


def _configuration(text: str) -> dict[str, str]:
    """The configuration in CONNECTOR_CONFIGURATION; empty if there is none."""
    try:
        given = json.loads(text or "{}")
    except ValueError:
        given = None
    if not isinstance(given, dict) or not all(isinstance(v, str) for v in given.values()):
        sys.exit("CONNECTOR_CONFIGURATION is not a JSON object of strings")
    left = [key for key, value in given.items() if _PLACEHOLDER.fullmatch(value.strip())]
    if left:
        sys.exit(f"CONNECTOR_CONFIGURATION holds placeholders: {', '.join(left)}")
    closed = [key for key, value in given.items() if value.strip().startswith(_ENCRYPTED)]
    if closed:
        sys.exit(
            "CONNECTOR_CONFIGURATION holds values that only the machine that encrypted them can "
            f"read: {', '.join(closed)}"
        )
    return given


def _without_surprises(environment: dict[str, str], folder: Path) -> dict[str, str]:
    """The environment of `fivetran deploy`: without a configuration of its own, without settings
    of other connections (CI), and with a stub for the check that would rewrite the pins."""
    left_out = ("CONNECTOR_CONFIGURATION", "FIVETRAN_CONFIGURATION")
    kept = {name: value for name, value in environment.items() if name not in left_out}
    path = stub_pipreqs(folder / "bin", environment.get("PATH", os.defpath))
    return {**kept, "PATH": path, "CI": "true", "DO_NOT_TRACK": "1", "PYTHONUTF8": "1"}


def _run(command: list[str], environment: dict[str, str], mask: Callable[[str], str]) -> int:
    """Runs a command and passes on what it prints, line by line, through ``mask``. If an error or
    a signal ends this process before, the command ends, too, with what it has started."""
    with subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    ) as process:
        try:
            for line in process.stdout or []:
                print(mask(line), end="", flush=True)
        except BaseException:
            _end(process)
            raise
    return process.returncode


def _end(process: "subprocess.Popen[str]") -> None:
    """Ends a process and, where there are groups of processes, those that it has started."""
    if sys.platform == "win32":
        process.kill()
        return
    for number in (signal.SIGTERM, signal.SIGKILL):
        # There is no such group once all of it has ended; macOS says that it is not ours.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_SECONDS_TO_END)


def _read(path: Path) -> str | None:
    return path.read_text() if path.exists() else None
