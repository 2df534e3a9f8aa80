"""Coverage-guided fuzzing of the code that reads what others send or write.

targets   functions of bytes, each of which raises where the code does not do what it promises
__main__  `python -m tests.fuzz TARGET --minutes 10`

Inputs that together run every line are kept in tests/fixtures/fuzz; `make test` replays them.
"""

import json

from tools.paths import ROOT

KEPT = ROOT / "tests" / "fixtures" / "fuzz"


def kept(target: str) -> list[bytes]:
    """The inputs of a target that are kept; in the file each byte is a character."""
    path = KEPT / f"{target}.json"
    texts = json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
    return [text.encode("latin-1") for text in texts]


def keep(target: str, inputs: list[bytes]) -> None:
    """Writes the inputs of a target."""
    texts = json.dumps([data.decode("latin-1") for data in inputs], indent=0, ensure_ascii=False)
    (KEPT / f"{target}.json").write_text(texts + "\n", encoding="utf-8")
