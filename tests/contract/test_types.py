"""Types that do not depend on the data, and any text."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.compare import assert_equal_to_source
from tests.contract.helpers import in_full, succeeded
from tests.sandbox.fivetran import Project, load, stored_column, stored_table
from tests.sandbox.simulator import Simulator
from tests.width import wide

TEXTS = {
    # Combining marks that must not be composed, right to left, joined emoji, flags of letters that
    # are not shown, code points beyond 16 bits, ligatures, and noncharacters.
    "odd": "e\u0301 \u05e9\u05dc\u05d5\u05dd \u202eabc\u202c \ufdfa \U0001f469\u200d\U0001f467 "
    "\U0001f3f4\U000e0067\U000e0062\U000e007f \U0001d518 \ufb01 \u0130\u0131\u1e9e \ufeff\u2028"
    # And characters that some format has to quote.
    "\u00a0\ufffd\ufdd0\U0010ffff\"'\\,;\r\n\t "
    + "".join(map(chr, [*range(1, 32), 0, *range(127, 160)])),
    "long": "n\u00e9 \U0001f600" * 131_072,
}


@pytest.mark.parametrize("text", [TEXTS["odd"], *wide(TEXTS["long"])], ids=["odd", "long"])
def test_any_text_arrives_as_it_is(little: Any, tmp_path: Path, text: str) -> None:
    """Every character but the null, which the platform removes; also a megabyte of text. Fields
    without a column are kept, however deeply they are nested."""
    deep: Any = text[-1000:].replace("\0", "")
    for _ in range(100):
        deep = {"in": [deep]}
    tables, project = little.place(text, deep), Project(little.name, tmp_path)
    succeeded(project.sync(in_full(little)))
    assert_equal_to_source(project, little)
    for table in tables:
        kept = [json.loads(row["additional_fields"] or "{}") for row in project.rows(table)]
        assert deep in [fields.get("unheard_of") for fields in kept], table


DUCKDB_TYPES = {
    "STRING": "VARCHAR",
    "SHORT": "SMALLINT",
    "INT": "INTEGER",
    "LONG": "BIGINT",
    "FLOAT": "FLOAT",
    "DOUBLE": "DOUBLE",
    "BINARY": "BLOB",
    "XML": "VARCHAR",
    "BOOLEAN": "BOOLEAN",
    "UTC_DATETIME": "TIMESTAMP WITH TIME ZONE",
    "NAIVE_DATE": "DATE",
    "NAIVE_DATETIME": "TIMESTAMP",
    "JSON": "JSON",
}


def test_the_types_are_the_declared_ones(sync: Any, project: Any, sandbox: Any) -> None:
    """Exactly the declared columns exist, with their types, also after numbers came as text and
    text as numbers."""
    succeeded(sync())
    assert_types(project, sandbox)
    sandbox.be_odd()
    succeeded(sync())
    assert_types(project, sandbox)
    assert_equal_to_source(project, sandbox)


def assert_types(project: Project, sandbox: Simulator) -> None:
    for entry in load(sandbox.name).schema(sandbox.configuration()):
        types = {
            stored_column(column): f"DECIMAL({kind['precision']},{kind['scale']})"
            if isinstance(kind, dict)
            else DUCKDB_TYPES[kind]
            for column, kind in entry["columns"].items()
        }
        assert project.types(stored_table(entry["table"])) == types
