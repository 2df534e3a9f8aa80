"""Fuzzes one target for minutes: `python -m tests.fuzz TARGET --minutes 10`.

It needs atheris, which has wheels for Linux and Python 3.11 to 3.13 alone, and is therefore no
development dependency: `.venv/bin/python -m pip install atheris==3.0.0`.
"""

import argparse
import os
import sys
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Any

from tests.fuzz import keep, kept
from tools.paths import ROOT, build_folder

_INSTRUMENTED = [
    *("shared", "sqlserver", "page_links", "setting_kinds", "pytds"),
    *("requests", "urllib3", "cryptography.fernet"),
]
_READERS = (str(ROOT / "shared"), str(ROOT / "connectors"))
_SLOWEST = 5  # seconds for one input
_MEMORY = 2_000  # MB
_LARGEST = 2_000  # bytes of an input
_KEPT = 150  # bytes of an input that is kept in the repository


def fuzz(target: str, minutes: float, folder: Path) -> None:
    """Runs libFuzzer with the inputs in ``folder``. It ends this process, with 0 if nothing failed
    in so many minutes."""
    try:
        import atheris  # type: ignore[import-untyped]
    except ImportError:
        sys.exit(f"atheris is missing.{(__doc__ or '').partition('.')[2]}")

    atheris.enabled_hooks.add("str")
    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz import targets
    for number, data in enumerate([*kept(target), *targets.seeds(target)]):
        (folder / f"seed-{number}").write_bytes(data)
    words = folder.parent / "words"
    words.write_text("".join(f'"{_escaped(word)}"\n' for word in targets.WORDS[target].split(" ")))
    options = {
        "max_total_time": int(minutes * 60),
        "max_len": _LARGEST,
        "timeout": _SLOWEST,
        "rss_limit_mb": _MEMORY,
        "artifact_prefix": f"{folder.parent}/failure-",
        "print_final_stats": 1,
        "dict": words,
    }
    arguments = [f"-{name}={value}" for name, value in options.items()]
    atheris.Setup([sys.argv[0], *arguments, str(folder)], targets.TARGETS[target])
    atheris.Fuzz()


def _escaped(word: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in word.encode())


def worth_keeping(target: str, folder: Path) -> list[bytes]:
    """The inputs that are kept and those that failed once; and of the others short ones that
    together go from line to line in all the ways that they all do, as often, to a power of two."""
    from tests.fuzz import targets

    always = {*kept(target), *(path.read_bytes() for path in folder.parent.glob("failure-*"))}
    others = {path.read_bytes() for path in folder.iterdir()} - always
    chosen, seen = list[bytes](), set[tuple[Any, int]]()
    for data in [*sorted(always), *sorted(others, key=lambda data: (len(data), data))]:
        if len(data) > _KEPT and data not in always:
            break
        found = _steps(lambda data=data: targets.TARGETS[target](data))
        if data in always or not found <= seen:
            chosen.append(data)
            seen |= found
    return chosen


def _steps(run: Any) -> set[tuple[Any, int]]:
    """The steps from a line of the readers to the next one in the same function, each with the
    bits of the number of times that it is taken."""
    found = Counter[tuple[str, int, int]]()

    def enter(frame: FrameType, event: str, argument: Any) -> Any:
        name, before = frame.f_code.co_filename, frame.f_lineno
        if not name.startswith(_READERS):
            return None

        def step(frame: FrameType, event: str, argument: Any) -> Any:
            nonlocal before
            found[name, before, frame.f_lineno] += 1
            before = frame.f_lineno
            return step

        return step

    sys.settrace(enter)
    try:
        run()
    finally:
        sys.settrace(None)
    return {(step, times.bit_length()) for step, times in found.items()}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", help="a name in TARGETS of tests/fuzz/targets.py")
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--keep", action="store_true", help="keep the inputs for `make test`")
    given = parser.parse_args()
    folder = build_folder() / "fuzz" / given.target / "inputs"
    folder.mkdir(parents=True, exist_ok=True)
    child = os.fork()
    if child == 0:
        fuzz(given.target, given.minutes, folder)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if given.keep and code == 0:
        keep(given.target, worth_keeping(given.target, folder))
    return code


if __name__ == "__main__":
    sys.exit(main())
