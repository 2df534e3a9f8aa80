"""Typed expressions: T-SQL's type rules over the stored forms, as SQLite text.

What SQLite cannot do itself becomes a call of one function, `tsql(n, ...)`, whose n-th Python
callable belongs to the statement. What is constant is computed here, so that a predicate on a
column stays a plain comparison that an index serves.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from tests.sandbox.mssql import types
from tests.sandbox.mssql.collation import DEFAULT
from tests.sandbox.mssql.convert import convert, text_function
from tests.sandbox.mssql.errors import error
from tests.sandbox.mssql.store import order_sql
from tests.sandbox.mssql.types import SqlType, Stored

_PRECEDENCE = (
    "hierarchyid", "geometry", "geography", "sql_variant", "xml", "json", "datetimeoffset",
    "datetime2", "datetime", "smalldatetime", "date", "time", "float", "real", "decimal",
    "numeric", "money", "smallmoney", "bigint", "int", "smallint", "tinyint", "bit", "ntext",
    "text", "image", "timestamp", "uniqueidentifier", "sysname", "nvarchar", "nchar", "varchar",
    "char", "varbinary", "binary",
)  # fmt: skip
_RANK = {name: rank for rank, name in enumerate(_PRECEDENCE)}


@dataclass(frozen=True)
class Sql:
    """A piece of SQLite text and the values of its question marks, in order."""

    text: str
    args: tuple[Stored, ...] = ()


def join(separator: str, parts: Sequence[Sql]) -> Sql:
    return Sql(
        separator.join(part.text for part in parts),
        tuple(value for part in parts for value in part.args),
    )


@dataclass(frozen=True)
class Expr:
    """A typed expression. A constant has its value; `untyped` is a bare NULL."""

    sql: Sql
    type: SqlType
    nullable: bool = True
    constant: bool = False
    value: Stored = None
    untyped: bool = False
    identity: bool = False
    computed: bool = False
    explicit_collation: bool = False


def const(value: Stored, t: SqlType) -> Expr:
    return Expr(Sql("?", (value,)), t, value is None, constant=True, value=value)


NULL = Expr(Sql("NULL"), types.INT, constant=True, untyped=True)


def _int_as_decimal(t: SqlType) -> SqlType:
    return types.decimal_type(types.INT_DIGITS[t.name], 0) if t.family == "int" else t


def common_type(left: SqlType, right: SqlType) -> SqlType:
    """The type of which two branches are, by the server's precedence."""
    if left == right:
        return left
    first, second = sorted((left, right), key=lambda t: _RANK[t.name])
    if first.family == "dec" and second.family in ("dec", "int"):
        a, b = first, _int_as_decimal(second)
        if first.name == second.name and first.name in ("money", "smallmoney"):
            return first
        scale = max(a.scale, b.scale)
        whole = max(a.precision - a.scale, b.precision - b.scale)
        return types.decimal_type(min(whole + scale, 38), scale)
    if first.family == "str" and second.family == "str":
        length = -1 if min(left.length, right.length) < 0 else max(left.length, right.length)
        name = {"nchar": "nvarchar", "sysname": "nvarchar", "char": "varchar"}
        return replace(first, name=name.get(first.name, first.name), length=length)
    if first.name == second.name and first.family == "bin":
        length = -1 if min(left.length, right.length) < 0 else max(left.length, right.length)
        return replace(first, length=length)
    if first.name == second.name:
        return replace(first, scale=max(left.scale, right.scale))
    return first


def same_storage(left: SqlType, right: SqlType) -> bool:
    """Whether a stored value of one type is a stored value of the other, as it is."""
    if left.family != right.family:
        return False
    if left.family == "dec":
        return left.scale == right.scale and left.wide == right.wide
    return left.family not in ("dt", "time", "str", "bin", "udt", "float", "int") or (
        left == right or (left.family in ("int",) and _RANK[left.name] >= _RANK[right.name])
    )


@dataclass
class Builder:
    """Builds expressions of one statement and keeps its Python functions."""

    functions: list[Callable[..., Stored]] = field(default_factory=list)

    def apply(
        self,
        function: Callable[..., Stored],
        t: SqlType,
        *operands: Expr,
        strict: bool = True,
        nullable: bool | None = None,
    ) -> Expr:
        """`function` of stored values; a strict one is NULL when an operand is."""

        def strictly(*values: Stored) -> Stored:
            return None if None in values else function(*values)

        used = strictly if strict else function
        if all(operand.constant for operand in operands):
            return const(used(*(operand.value for operand in operands)), t)
        self.functions.append(used)
        number = Sql(str(len(self.functions) - 1))
        arguments = join(", ", [number, *(operand.sql for operand in operands)])
        can_be_null = any(o.nullable for o in operands) if nullable is None else nullable
        return Expr(Sql(f"tsql({arguments.text})", arguments.args), t, can_be_null)

    def cast(
        self, operand: Expr, t: SqlType, style: int | None = None, safe: bool = False
    ) -> Expr:
        """CAST, CONVERT and their TRY_ forms."""
        if t.family == "str":
            kept = operand.type.collation if operand.type.family == "str" else ""
            t = types.with_collation(t, kept or t.collation or DEFAULT)
        if operand.untyped:
            return const(None, t)
        if operand.type == t and style is None:
            return operand
        source = operand.type
        if style is None and not operand.constant and same_storage(source, t):
            return replace(operand, type=t)

        quick = text_function(source, t, style)
        if quick is not None:
            return self.apply(quick, t, operand, strict=False, nullable=operand.nullable)

        def run(value: Stored) -> Stored:
            if not safe:
                return convert(value, source, t, style)
            try:
                return convert(value, source, t, style)
            except Exception:  # TRY_CAST gives NULL, whatever the reason
                return None

        return self.apply(run, t, operand, nullable=safe or operand.nullable)

    def unify(self, operands: Sequence[Expr]) -> tuple[list[Expr], SqlType]:
        """The operands as their common type."""
        typed = [operand for operand in operands if not operand.untyped]
        if not typed:
            return list(operands), types.INT
        t = typed[0].type
        for operand in typed[1:]:
            t = common_type(t, operand.type)
        return [self.cast(operand, t) for operand in operands], t

    # Comparisons

    def compare(self, left: Expr, operator: str, right: Expr) -> Sql:
        """A condition; `operator` is one of = <> < <= > >=."""
        if left.untyped or right.untyped:
            return Sql("NULL")
        for side in (left, right):
            if side.type.name in (
                "xml",
                "json",
                "text",
                "ntext",
                "image",
                "geometry",
                "geography",
            ):
                raise error(305, side.type.name)
        left, right = self._comparable(left, right)
        if left.type.family == "str":
            collation = self._collation(left, right)
            national = left.type.national or right.type.national
            t = SqlType("nvarchar" if national else "varchar", collation=collation)
            pieces = [left.sql, Sql(operator), Sql(order_sql(right.sql.text, t), right.sql.args)]
            return join(" ", pieces)
        sides = [Sql(order_sql(s.sql.text, s.type), s.sql.args) for s in (left, right)]
        return join(f" {operator} ", sides)

    @staticmethod
    def _collation(left: Expr, right: Expr) -> str:
        if left.type.collation == right.type.collation:
            return left.type.collation
        chosen = [side for side in (left, right) if side.explicit_collation]
        if len(chosen) == 1:
            return chosen[0].type.collation
        columns = [side for side in (left, right) if not side.constant]
        if len(columns) == 1:
            return columns[0].type.collation
        raise error(468, left.type.collation, right.type.collation)

    def _comparable(self, left: Expr, right: Expr) -> tuple[Expr, Expr]:
        """Both sides in one stored form."""
        a, b = left.type.family, right.type.family
        if {a, b} <= {"int", "dec", "float"}:
            return self._numbers(left, right)
        if a == b and a not in ("dto", "variant", "udt"):
            return left, right
        if left.type == right.type:
            return left, right
        t = common_type(left.type, right.type)
        if t.family == "bin" and {a, b} == {"bin"}:
            return left, right
        if "str" in (a, b) and t.family == "bin":
            raise error(402, left.type.name, right.type.name, "equal to")
        if t.family in ("dt", "dto", "time") and not {a, b} <= {"dt", "dto", "time", "str"}:
            raise error(206, left.type.name, right.type.name)
        return self.cast(left, t), self.cast(right, t)

    def _numbers(self, left: Expr, right: Expr) -> tuple[Expr, Expr]:
        if left.type.family == right.type.family == "int":
            return left, right
        if "float" in (left.type.family, right.type.family):
            return self.cast(left, types.FLOAT), self.cast(right, types.FLOAT)
        if same_storage(left.type, right.type):
            return left, right
        if right.constant and (fitted := _fit_exactly(right, left.type)):
            return left, fitted
        if left.constant and (fitted := _fit_exactly(left, right.type)):
            return fitted, right
        return self._number_key(left), self._number_key(right)

    def _number_key(self, operand: Expr) -> Expr:
        """A key that orders numbers of any scale exactly."""
        t = operand.type

        def key(value: Stored) -> bytes:
            unscaled = types.decimal_load(value, t) if t.family == "dec" else int(value)
            return (unscaled * int(10 ** (38 - t.scale)) + 2**263).to_bytes(34, "big")

        return self.apply(key, SqlType("varbinary", length=34), operand)

    # Arithmetic

    def arithmetic(self, operator: str, left: Expr, right: Expr) -> Expr:
        if left.untyped or right.untyped:
            return const(None, right.type if left.untyped else left.type)
        families = {left.type.family, right.type.family}
        if operator == "+" and families <= {"str", "xml"}:
            return self.concatenate(left, right)
        if operator == "+" and families == {"bin"}:
            return self.apply(lambda a, b: a + b, SqlType("varbinary", length=8000), left, right)
        if families & {"dt"} and operator in "+-" and families & {"int", "float", "dec"}:
            return self._add_days(operator, left, right)
        if "str" in families and families & {"int", "dec", "float"}:
            t = common_type(left.type, right.type)
            left, right = self.cast(left, t), self.cast(right, t)
            families = {left.type.family, right.type.family}
        if not families <= {"int", "dec", "float"}:
            raise error(402, left.type.name, right.type.name, operator)
        if "float" in families:
            return self._float_arithmetic(operator, left, right)
        if "dec" in families:
            return self._decimal_arithmetic(operator, left, right)
        return self._int_arithmetic(operator, left, right)

    def concatenate(self, left: Expr, right: Expr) -> Expr:
        t = common_type(left.type, right.type)
        if left.constant and right.constant:
            both = None not in (left.value, right.value)
            return const(left.value + right.value if both else None, t)
        lengths = (left.type.length, right.type.length)
        limit = 4000 if t.national else 8000
        length = -1 if min(lengths) < 0 else min(sum(lengths), limit)
        text = join(" || ", [left.sql, right.sql])
        nullable = left.nullable or right.nullable
        return Expr(Sql(f"({text.text})", text.args), replace(t, length=length), nullable)

    def _add_days(self, operator: str, left: Expr, right: Expr) -> Expr:
        moment, days = (left, right) if left.type.family == "dt" else (right, left)
        t = moment.type
        if t.name not in ("datetime", "smalldatetime"):
            raise error(206, left.type.name, right.type.name)
        sign = -1 if operator == "-" else 1

        def add(ticks: Stored, number: Stored) -> Stored:
            shift = round(number * types.TICKS_PER_DAY) * sign
            return types.fit_ticks(ticks + shift, t, "datetime")

        return self.apply(add, t, moment, self.cast(days, types.FLOAT))

    def _float_arithmetic(self, operator: str, left: Expr, right: Expr) -> Expr:
        def run(a: float, b: float) -> float:
            if operator == "/" and b == 0:
                raise error(8134)
            return {"+": a + b, "-": a - b, "*": a * b}[operator] if operator != "/" else a / b

        sides = self.cast(left, types.FLOAT), self.cast(right, types.FLOAT)
        return self.apply(run, types.FLOAT, *sides)

    def _int_arithmetic(self, operator: str, left: Expr, right: Expr) -> Expr:
        t = common_type(left.type, right.type)
        t = types.INT if t.name == "bit" else t
        low, high = types.INT_RANGES[t.name]

        def run(a: int, b: int) -> int:
            if operator in "/%" and b == 0:
                raise error(8134)
            if operator == "/":
                result = abs(a) // abs(b) * (1 if (a >= 0) == (b >= 0) else -1)
            elif operator == "%":
                result = abs(a) % abs(b) * (1 if a >= 0 else -1)
            else:
                result = {"+": a + b, "-": a - b, "*": a * b}[operator]
            if not low <= result <= high:
                raise error(8115, "expression", t.name)
            return result

        return self.apply(run, t, left, right)

    def _decimal_arithmetic(self, operator: str, left: Expr, right: Expr) -> Expr:
        a, b = _int_as_decimal(left.type), _int_as_decimal(right.type)
        t = _decimal_result(operator, a, b)

        def load(value: Stored, original: SqlType) -> int:
            return types.decimal_load(value, original) if original.family == "dec" else int(value)

        def run(x: Stored, y: Stored) -> Stored:
            m, n = load(x, left.type), load(y, right.type)
            if operator in "+-":
                scale = max(a.scale, b.scale)
                m, n = types.rescale(m, a.scale, scale), types.rescale(n, b.scale, scale)
                result = m + n if operator == "+" else m - n
            elif operator == "*":
                result, scale = m * n, a.scale + b.scale
            elif n == 0:
                raise error(8134)
            elif operator == "/":
                scale = t.scale
                top = abs(m) * int(10 ** (t.scale + b.scale - a.scale + 1))
                result = types.rescale(top // abs(n), 1, 0)
                result = result if (m >= 0) == (n >= 0) else -result
            else:
                scale = max(a.scale, b.scale)
                m, n = types.rescale(m, a.scale, scale), types.rescale(n, b.scale, scale)
                result = abs(m) % abs(n) * (1 if m >= 0 else -1)
            return types.decimal_store(types.rescale(result, scale, t.scale), t)

        return self.apply(run, t, left, right)


def _decimal_result(operator: str, a: SqlType, b: SqlType) -> SqlType:
    """Precision and scale of decimal arithmetic, as documented for decimal(p, s)."""
    if operator in "+-%":
        scale = max(a.scale, b.scale)
        precision = max(a.precision - a.scale, b.precision - b.scale) + scale + (operator != "%")
    elif operator == "*":
        precision, scale = a.precision + b.precision + 1, a.scale + b.scale
    else:
        scale = max(6, a.scale + b.precision + 1)
        precision = a.precision - a.scale + b.scale + scale
    if precision > 38:
        whole = precision - scale
        scale = min(scale, max(38 - whole, min(scale, 6)))
        precision = 38
    return types.decimal_type(precision, scale)


def _fit_exactly(constant: Expr, t: SqlType) -> Expr | None:
    """The constant as a number of type `t`, if that changes nothing."""
    if constant.value is None:
        return const(None, t)
    source = constant.type
    unscaled = (
        types.decimal_load(constant.value, source)
        if source.family == "dec"
        else int(constant.value)
    )
    if t.family == "int":
        whole, rest = divmod(unscaled, int(10**source.scale))
        return const(whole, types.BIGINT) if rest == 0 and abs(whole) < 2**63 else None
    wider = unscaled * int(10 ** max(t.scale - source.scale, 0))
    divisor = int(10 ** max(source.scale - t.scale, 0))
    if wider % divisor or abs(wider // divisor) >= 10**t.precision:
        return None
    return const(types.decimal_store(wider // divisor, t), t)
