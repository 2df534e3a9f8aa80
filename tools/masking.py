"""Secrets in the output of a command, in the forms in which programs print them."""

import base64
import html
import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus

# Characters of base64 from within a longer text: fewer are met by chance.
_SHORTEST_PART = 6
# As many as come from three times JSON or repr; a bound keeps the search from taking for ever.
_BACKSLASHES = r"\\{1,8}"
_LETTERS = {"\n": "n", "\r": "r", "\t": "t", "\b": "b", "\f": "f"}  # of their escapes


def masker(secrets: Iterable[str]) -> Callable[[str], str]:
    """A function that returns a line of text with stars for every form of the ``secrets``: as
    JSON, URLs, HTML and Python's repr escape them, in any mixture, and as base64. Of a secret of
    several lines, each line is one, too."""
    texts = _texts(secrets)
    if not texts:
        return lambda line: line
    plain = ["".join(map(_escapes, re.findall(r"\\+|[^\\]", text))) for text in texts]
    encoded = sorted({form for text in texts for form in _base64(text)}, key=len, reverse=True)
    pattern = re.compile("|".join([*plain, *map(re.escape, encoded)]))
    return lambda line: pattern.sub("***", line)


def printed_forms(secrets: Iterable[str]) -> list[str]:
    """The usual forms of the ``secrets`` within a line, the longest first."""
    forms: set[str] = set()
    for text in _texts(secrets):
        for escaped in (text, json.dumps(text, ensure_ascii=False)[1:-1]):
            forms |= {escaped, json.dumps(escaped)[1:-1], repr(escaped)[1:-1]}
        forms |= {quote(text), quote(text, safe=""), quote_plus(text), html.escape(text)}
        forms |= _base64(text)
    # A line break cannot be printed within a line, and its escapes are among the other forms.
    return sorted((f for f in forms if not {"\n", "\r"} & {*f}), key=lambda f: (-len(f), f))


def _texts(secrets: Iterable[str]) -> list[str]:
    """The secrets and their lines, also stripped, the longest first; brackets alone on a line
    tell nothing."""
    texts = set()
    for secret in secrets:
        lines = (line for line in secret.splitlines() if any(map(str.isalnum, line)))
        if secret.strip():
            texts |= {secret, secret.strip(), *(line.strip() for line in lines)}
    return sorted(texts, key=lambda text: (-len(text), text))


def _escapes(character: str) -> str:
    r"""A pattern of all that may stand for a character, or for a run of backslashes."""
    if character[0] == "\\":
        length = len(character)
        return rf"(?:\\{{{length},{8 * length}}}|(?i:{'%(?:25){0,3}5c' * length}))"
    number, wide = ord(character), character.encode("utf-16-be", "surrogatepass")
    data = character.encode("utf-8", "surrogatepass")
    units = [wide[i : i + 2].hex() for i in range(0, len(wide), 2)]
    ways = [
        "".join(rf"{_BACKSLASHES}u{unit}" for unit in units),
        rf"{_BACKSLASHES}U{number:08x}",
        rf"{_BACKSLASHES}x{number:02x}",
        "".join(rf"{_BACKSLASHES}x{byte:02x}" for byte in data),
        "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in data),
        rf"&(?:amp;){{0,3}}#(?:{number}|x{number:x});",
    ]
    exact = [re.escape(html.escape(character)), re.escape(character)]
    if not character.isalnum():
        exact.append(f"{_BACKSLASHES}{re.escape(character)}")
    if character in _LETTERS:
        exact.append(f"{_BACKSLASHES}{_LETTERS[character]}")
    if character == " ":
        exact.append(r"\+")
    return f"(?:{'|'.join(exact)}|(?i:{'|'.join(ways)}))"


def _base64(text: str) -> set[str]:
    """Base64 of ``text`` alone, and what shows of it wherever it begins in a longer text, such as
    "user:password": each character stands for six bits."""
    data = text.encode("utf-8", "replace")
    whole = base64.b64encode(data).decode()
    forms = {whole, whole.rstrip("=")}
    for before in range(3):
        encoded = base64.b64encode(bytes(before) + data).decode()
        part = encoded[-(-8 * before // 6) : 8 * (before + len(data)) // 6]
        if len(part) >= _SHORTEST_PART:
            forms.add(part)
    return forms | {form.replace("+", "-").replace("/", "_") for form in forms}
