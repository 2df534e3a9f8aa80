"""The template and the README of every connector say what its code does."""

import ast
import json
import re
from typing import Any

from shared.rows import decimal
from shared.settings import declared
from tests.sandbox.fivetran import load
from tools.paths import ROOT


def test_the_template_has_every_key_and_no_other(sandbox: Any) -> None:
    """configuration.json holds placeholders or defaults for all that the connector reads."""
    settings = declared(load(sandbox.name).Settings)
    template = json.loads((ROOT / "connectors" / sandbox.name / "configuration.json").read_text())
    assert list(template) == list(settings)
    for key, value in template.items():
        default = settings[key].default
        fills_in = key in sandbox.wider_in_template or value == default
        assert fills_in if default else re.fullmatch(r"<YOUR_[A-Z_]+>", value), key


def test_the_readme_describes_every_key_and_table(sandbox: Any) -> None:
    """The README's table of keys and its tables agree with the code."""
    module = load(sandbox.name)
    text = (ROOT / "connectors" / sandbox.name / "README.md").read_text()
    for key, setting in declared(module.Settings).items():
        [row] = re.findall(rf"^\| `{key}` \|(.*)$", text, re.M)
        assert ("yes" in row.split("|")[0]) == (setting.default is None), key
        assert f"`{setting.default}`" in row or not setting.default, key
        assert setting.kind.expected in row, key
    for entry in module.schema(sandbox.configuration()):
        if entry["table"] in (sandbox.tables or (entry["table"],)):
            primary_key, columns = _described(text, entry["table"].lower())
            assert primary_key == entry.get("primary_key", []), entry["table"]
            assert columns == entry["columns"], entry["table"]


def _described(text: str, table: str) -> tuple[list[str], dict[str, Any]]:
    """The key and the columns of a table in a README: in a row of its table of tables, or in a
    table of its own after the table's name."""
    found = re.search(rf"^\| `{table}` \| (.*?) \| (.*) \|$", text, re.M)
    if found:
        key = [name for name in re.findall(r"`(\w+)`", found[1]) if name != "_fivetran_id"]
        listed = re.findall(r"((?:`\w+`,? )+)([A-Z_]+(?:\(\d+,\d+\))?)", found[2])
    else:
        section = text.split(f"**{table}**")[1].split("\n\n")[1]
        listed = re.findall(r"^\| (`\w+` )\| ([A-Z_]+) \|", section, re.M)
        key = re.findall(r"^\| `(\w+)` .*primary key", section, re.M)
    return key, {
        name: _declared(kind) for quoted, kind in listed for name in re.findall(r"\w+", quoted)
    }


def _declared(kind: str) -> Any:
    parts = re.fullmatch(r"DECIMAL\((\d+),(\d+)\)", kind)
    return decimal(int(parts[1]), int(parts[2])) if parts else kind


def test_the_readme_names_only_functions_that_exist(sandbox: Any) -> None:
    """Each function that it refers to is defined in connector.py."""
    folder = ROOT / "connectors" / sandbox.name
    text = (folder / "README.md").read_text()
    tree = ast.parse((folder / "connector.py").read_text())
    defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    referred = set(re.findall(r"`(\w+)\(\)`", text)) | set(
        re.findall(r"refer to (?:the )?`(\w+)`", text)
    )
    assert referred
    assert referred <= defined | {"schema", "update"}
