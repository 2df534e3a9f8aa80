"""T-SQL text to statements: sqlglot's parser, and the split of a batch, which it does not do."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import sqlglot
from sqlglot import exp
from sqlglot.dialects.tsql import TSQL
from sqlglot.errors import ParseError, TokenError
from sqlglot.tokens import Token, TokenType  # type: ignore[attr-defined]

from tests.sandbox.mssql.errors import SqlError, error
from tests.sandbox.mssql.subset import check

_TWO_WORDS = {"DOUBLE", "CHARACTER", "CHAR", "NATIONAL", "BINARY"}
_SECOND_WORDS = {"PRECISION", "VARYING", "CHARACTER", "CHAR", "TEXT"}


class Dialect(TSQL):
    """T-SQL in which functions and types keep the names they were written with.

    sqlglot's own tables merge what must stay apart here: GETDATE with SYSDATETIME, real with
    float, text with ntext.
    """

    class Parser(TSQL.Parser):  # type: ignore[misc,valid-type]
        FUNCTIONS: ClassVar[dict[str, Any]] = {}
        NO_PAREN_FUNCTIONS: ClassVar[dict[Any, Any]] = {}
        FUNCTION_PARSERS: ClassVar[dict[str, Any]] = {
            name: TSQL.Parser.FUNCTION_PARSERS[name]
            for name in ("CAST", "TRY_CAST", "CONVERT", "TRY_CONVERT", "STRING_AGG")
            if name in TSQL.Parser.FUNCTION_PARSERS
        }

        def _parse_types(
            self, check_func: bool = False, *args: Any, **kwargs: Any
        ) -> exp.Expression | None:
            token = self._curr
            if check_func or token is None or token.token_type is TokenType.ALIAS:
                return None  # T-SQL has no typed literals; a computed column has no type
            if not re.match(r"\w", token.text) or token.text.upper() in ("PERSISTED", "NOT"):
                return None
            words = [token.text]
            self._advance()
            if token.text.upper() in _TWO_WORDS:
                while self._curr and self._curr.text.upper() in _SECOND_WORDS:
                    words.append(self._curr.text)
                    self._advance()
            while self._match(TokenType.DOT):
                words = [words[0], ".", self._curr.text]
                self._advance()
            if self._match(TokenType.L_PAREN):
                words.append("(")
                while self._curr and not self._match(TokenType.R_PAREN):
                    words.append(self._curr.text)
                    self._advance()
                words.append(")")
            return exp.DataType(this=exp.DataType.Type.USERDEFINED, kind=" ".join(words))


@dataclass(frozen=True)
class Statement:
    """One statement of a batch: its first keyword in upper case, its text, and its line."""

    keyword: str
    text: str
    line: int


_STARTERS = {
    "SELECT", "WITH", "INSERT", "UPDATE", "DELETE", "SET", "USE", "BEGIN", "COMMIT", "ROLLBACK",
    "SAVE", "DECLARE", "IF", "CREATE", "ALTER", "DROP", "TRUNCATE", "EXEC", "EXECUTE", "PRINT",
    "WAITFOR", "MERGE", "GRANT", "DENY", "REVOKE", "RAISERROR", "THROW",
}  # fmt: skip
_AFTER_SELECT = {"UNION", "ALL", "EXCEPT", "INTERSECT"}


def tokenize(sql: str) -> list[Token]:
    try:
        return list(Dialect().tokenize(sql))
    except TokenError as problem:
        tail = str(problem).split("\n")[0][-60:]
        raise SqlError(105, f"Unclosed quotation mark near '{tail}'.", severity=15) from None


@lru_cache(maxsize=512)
def split_batch(sql: str) -> tuple[Statement, ...]:
    """The statements of a batch, with or without semicolons between them."""
    tokens = tokenize(sql)
    statements: list[Statement] = []
    current: list[Token] = []
    depth = 0

    def finish() -> None:
        if current:
            text = sql[current[0].start : current[-1].end + 1]
            statements.append(Statement(current[0].text.upper(), text, current[0].line))
            current.clear()

    for token in tokens:
        if token.token_type is TokenType.SEMICOLON and depth == 0:
            finish()
            continue
        word = token.text.upper() if token.token_type is not TokenType.IDENTIFIER else ""
        if depth == 0 and current and _starts_statement(word, token, current):
            finish()
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        current.append(token)
    finish()
    return tuple(statements)


def _starts_statement(word: str, token: Token, current: list[Token]) -> bool:
    if word not in _STARTERS or token.token_type in (TokenType.STRING, TokenType.NATIONAL_STRING):
        return False
    first, previous = current[0].text.upper(), current[-1].text.upper()
    words = _outer_words(current)
    if first in ("CREATE", "ALTER") and "VIEW" in words:
        return False  # its definition goes on to the end
    if first in ("GRANT", "DENY", "REVOKE") and not words & {"TO", "FROM"}:
        return False  # DENY SELECT ON ... TO ...
    if first == "IF" or previous in (".", "@", "ELSE") or (first, previous) == ("CREATE", "OR"):
        return False  # an IF is taken apart when it runs
    if word == "WITH":
        return False
    if first == "WITH" and not words & {"SELECT", "INSERT", "UPDATE", "DELETE"}:
        return word not in ("SELECT", "INSERT", "UPDATE", "DELETE")
    if word == "SELECT":
        return previous not in _AFTER_SELECT and not (
            first == "INSERT" and not words & {"VALUES", "SELECT"}
        )
    if word == "SET":
        return not (first == "UPDATE" and "SET" not in words) and first != "ALTER"
    if word == "IF":
        return first not in ("DROP", "CREATE", "ALTER")
    if word in ("DROP", "ALTER", "UPDATE", "DELETE", "INSERT", "SELECT"):
        constraint = first == "CREATE" and previous in ("ON", "FOR")
        return first not in ("ALTER", "GRANT", "DENY", "REVOKE") and not constraint
    return first not in ("ALTER", "GRANT", "DENY", "REVOKE")


def _outer_words(tokens: list[Token]) -> set[str]:
    """The words outside of parentheses, in upper case."""
    words, depth = set(), 0
    for token in tokens:
        depth += (token.token_type is TokenType.L_PAREN) - (token.token_type is TokenType.R_PAREN)
        if depth == 0:
            words.add(token.text.upper())
    return words


_CHANGETABLE = re.compile(
    r"\bCHANGETABLE\s*\(\s*CHANGES\s+((?:\[(?:[^\]]|\]\])+\]|[\w$#]+)(?:\s*\.\s*(?:\[(?:[^\]]|\]\])+\]|[\w$#]+))*)",
    re.IGNORECASE,
)


def _plain_changetable(match: re.Match[str]) -> str:
    name = match[1].replace("'", "''")
    return f"CHANGETABLE(N'{name}'"


@lru_cache(maxsize=1024)
def parse(sql: str) -> exp.Expression:
    """The tree of one statement; raises 102 where the parser stops."""
    text = _CHANGETABLE.sub(_plain_changetable, sql)
    try:
        trees = sqlglot.parse(text, read=Dialect)
    except ParseError as problem:
        details = problem.errors[0] if problem.errors else {}
        near = str(details.get("highlight") or "end of statement")
        found = error(102, near)
        found.line = int(details.get("line") or 1)
        raise found from None
    except TokenError:
        raise error(102, sql[-20:]) from None
    tree = trees[0] if trees else None
    if tree is None or len(trees) != 1:
        raise error(102, sql[:20])
    assert isinstance(tree, exp.Expression)
    return tree


@lru_cache(maxsize=1024)
def parse_query(sql: str) -> exp.Expression:
    """As `parse`, for a query or a change of rows: what is not understood is an error."""
    foreign = {TokenType.DCOLON: "::", TokenType.LIMIT: "LIMIT", TokenType.DPIPE: "||"}
    for token in tokenize(sql):
        if token.token_type in foreign:
            raise error(102, foreign[token.token_type])
    tree = parse(sql)
    check(tree)
    return tree


def name_parts(name: str) -> list[str]:
    """The parts of a dotted name, brackets and quotes taken off."""
    parts = re.findall(r'\[((?:[^\]]|\]\])*)\]|"((?:[^"]|"")*)"|([^.\[\]"]+)', name)
    return [
        (a.replace("]]", "]") if a else b.replace('""', '"') if b else c).strip()
        for a, b, c in parts
    ]


def quote(name: str) -> str:
    """`name` in brackets."""
    return "[" + name.replace("]", "]]") + "]"
