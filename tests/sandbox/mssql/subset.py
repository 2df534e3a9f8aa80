"""Which parts of a parsed query this simulator understands.

The parser takes far more than T-SQL, and T-SQL has far more than is translated here. A clause
that nobody reads would change the result silently; so every part of a tree must be on this list.
"""

from __future__ import annotations

from sqlglot import exp

from tests.sandbox.mssql.errors import unsupported

_UNARY = "this"
_BINARY = "this expression"
_PARTS: dict[type[exp.Expression], str] = {
    exp.Select: "expressions from_ joins where group having order limit offset distinct with_ "
    "options",
    exp.Union: "this expression distinct order limit offset with_",
    exp.Except: "this expression distinct order limit offset with_",
    exp.Intersect: "this expression distinct order limit offset with_",
    exp.Subquery: "this alias",
    exp.With: "expressions",
    exp.CTE: "this alias",
    exp.From: _UNARY,
    exp.Join: "this on side kind",
    exp.Lateral: "this alias cross_apply",
    exp.Table: "this db catalog alias hints joins",
    exp.TableAlias: "this columns",
    exp.WithTableHint: "expressions",
    exp.Where: _UNARY,
    exp.Group: "expressions",
    exp.Having: _UNARY,
    exp.Order: "this expressions",
    exp.Ordered: "this desc nulls_first",
    exp.Limit: "expression",
    exp.Fetch: "direction count limit_options",
    exp.LimitOptions: "rows",
    exp.Offset: "expression",
    exp.Distinct: "expressions",
    exp.Values: "expressions alias",
    exp.Tuple: "expressions",
    exp.Alias: "this alias",
    exp.Column: "this table db catalog",
    exp.Identifier: "this quoted",
    exp.Star: "",
    exp.Literal: "this is_string",
    exp.National: _UNARY,
    exp.HexString: "this is_integer",
    exp.Null: "",
    exp.Neg: _UNARY,
    exp.Paren: _UNARY,
    exp.Not: _UNARY,
    exp.And: _BINARY,
    exp.Or: _BINARY,
    exp.Is: "this expression negate",
    exp.In: "this expressions query negate",
    exp.Between: "this low high negate",
    exp.Like: "this expression negate",
    exp.Escape: "this expression negate",
    exp.Exists: _UNARY,
    exp.Parameter: _UNARY,
    exp.Var: _UNARY,
    exp.Cast: "this to",
    exp.TryCast: "this to safe",
    exp.Convert: "this expression style safe",
    exp.DataType: "this kind",
    exp.Case: "this ifs default",
    exp.If: "this true",
    exp.Collate: _BINARY,
    exp.Dot: _BINARY,
    exp.Anonymous: "this expressions",
    exp.GroupConcat: "this separator",
    exp.Window: "this partition_by order over",
    exp.AtTimeZone: "this zone",
    exp.QueryOption: "this expression",
    exp.Insert: "this expression default",
    exp.Schema: "this expressions",
    exp.Update: "this expressions where",
    exp.Delete: "this where",
}
_PARTS.update(
    dict.fromkeys((exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE), _BINARY),
)
_PARTS.update(
    dict.fromkeys((exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod), "this expression typed safe"),
)
_ALLOWED: dict[type, frozenset[str]] = {
    kind: frozenset(parts.split()) for kind, parts in _PARTS.items()
}
_OPTIONS = {"RECOMPILE", "MAXDOP", "FAST", "ORDER", "HASH", "MERGE", "LOOP", "KEEP", "OPTIMIZE"}


def check(tree: exp.Expression) -> None:
    """Raises error 102 at the first part that is not understood."""
    for node in tree.walk():
        allowed = _ALLOWED.get(type(node))
        if allowed is None:
            raise unsupported(node.sql()[:60] or node.key.upper())
        for name, value in node.args.items():
            if value and name not in allowed:
                raise unsupported(f"{node.key.upper()} {name.rstrip('_').upper()}")
        if isinstance(node, exp.Ordered) and bool(node.args.get("nulls_first")) == bool(
            node.args.get("desc")
        ):
            raise unsupported("NULLS")
        if isinstance(node, exp.Table) and (alias := node.args.get("alias")) and alias.columns:
            raise unsupported(f"{alias.name}(")
        if isinstance(node, exp.QueryOption) and node.name.upper().split()[0] not in _OPTIONS:
            raise unsupported(f"OPTION {node.name}")
