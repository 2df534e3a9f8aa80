"""Settings: read once, checked all together, never shown."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from shared.errors import ConnectorError, SettingsError
from shared.settings import (
    FLAG,
    TEXT,
    TOKEN,
    URL,
    Setting,
    declared,
    integer,
    one_of,
    read,
    setting,
)


@dataclass(frozen=True, repr=False)
class Settings:
    key: str = setting("Key", "From the account page", TOKEN, secret=True)
    size: int = setting("Size", "Records", integer(1, 100), default="50")
    days: Any = setting("Days", "Days", integer(1, 365), default="")
    url: str = setting("URL", "The host", URL, default="https://api.example.com")
    on: bool = setting("On", "A switch", FLAG, default="true")
    mode: str = setting("Mode", "One of two", one_of("fast", "safe"), default="safe")


def test_what_a_field_declares() -> None:
    """Its label, description, kind and default; by default it is required and not secret."""
    kind = integer(1, 9)
    size = setting("Size", "Records", kind, default="5")
    assert size.metadata == {"setting": Setting("Size", "Records", kind, "5", False)}
    key = setting("Key", "From the account page", secret=True)
    assert key.metadata == {"setting": Setting("Key", "From the account page", TEXT, None, True)}
    assert setting("Name", "A name").metadata["setting"].secret is False
    assert declared(Settings)["url"].default == "https://api.example.com"


def test_kinds_with_limits() -> None:
    """Both ends of a range belong to it; names are taken in any case."""
    number, mode = integer(1, 100), one_of("fast", "safe")
    assert [number.parse(text) for text in ("1", "100", "+7", "007")] == [1, 100, 7, 7]
    assert [mode.parse(text) for text in ("fast", "SAFE")] == ["fast", "safe"]
    assert number[::2] == ("a whole number from 1 to 100", ())
    assert mode[::2] == ('"fast" or "safe"', ("fast", "safe"))
    for kind, text in ((number, "0"), (number, "101"), (number, "1_0"), (number, "٣"), (mode, "")):
        with pytest.raises(ValueError):  # noqa: PT011  # its text is not shown
            kind.parse(text)


@pytest.mark.parametrize("key", ["key", "size", "url"])
def test_a_value_that_is_still_encrypted_is_an_error(key: str) -> None:
    """It is sent nowhere, and not shown."""
    given = {"key": "k", key: " fivetran_encrypted:c2VjcmV0\n"}
    with pytest.raises(SettingsError, match=f"{key} is encrypted: `fivetran debug`") as refused:
        read(Settings, given)
    assert "c2VjcmV0" not in str(refused.value)


def test_a_lone_surrogate_is_no_text() -> None:
    """It could not be sent. The error comes before a request, and does not show the value."""

    @dataclass(frozen=True, repr=False)
    class Named:
        name: str = setting("Name", "A name")

    assert read(Named, {"name": " a b \U0001f600 "}).name == "a b \U0001f600"
    with pytest.raises(SettingsError, match=r"^The configuration is wrong:\nname must be text$"):
        read(Named, {"name": "a \ud83d b"})


def test_defaults() -> None:
    """A key that is missing, empty or a placeholder has its default; an empty default is None."""
    for given in ({}, {"size": "", "days": "  "}, {"size": "<SIZE>", "days": "<THE_DAYS_1>"}):
        settings = read(Settings, {"key": "k", **given})
        assert (settings.size, settings.days, settings.on) == (50, None, True)


@pytest.mark.parametrize("given", ["<Abc-123>", "<abc>", "<A-B>", "<1>", "<>", "<A_B>x"])
def test_what_only_looks_like_a_placeholder_is_a_value(given: str) -> None:
    """Placeholders are in upper case, as in the templates."""
    assert read(Settings, {"key": given}).key == given


def test_spaces_of_an_exact_value_are_kept() -> None:
    """Spaces at its ends are a part of a password; a line end is not, and spaces alone are no
    value."""

    @dataclass(frozen=True, repr=False)
    class Login:
        password: Any = setting("P", "P", exact=True, secret=True, default="")

    for given, expected in ((" p w ", " p w "), ("\t<Abc-123> \n", "\t<Abc-123> "), ("  ", None)):
        assert read(Login, {"password": given}).password == expected
    assert read(Login, {"password": "<YOUR_PASSWORD>"}).password is None


def test_values_are_trimmed_and_parsed() -> None:
    """As their kind says, in any case."""
    given = {"key": " k ", "size": " 7 ", "days": "+30", "on": "FALSE", "mode": "Fast"}
    settings = read(Settings, given)
    assert (settings.key, settings.size, settings.on, settings.mode) == ("k", 7, False, "fast")
    assert settings.days == 30


def test_all_errors_come_together() -> None:
    """One ValueError has a line for each key, and no value."""
    wrong = {"size": "101x", "days": "366", "url": "ftp://h", "on": "ja", "mode": "?"}
    with pytest.raises(SettingsError) as error:
        read(Settings, wrong)
    assert isinstance(error.value, (ValueError, ConnectorError))
    assert str(error.value).splitlines() == [
        "The configuration is wrong:",
        "key is missing: From the account page",
        "size must be a whole number from 1 to 100",
        "days must be a whole number from 1 to 365",
        "url must be an https:// address without user name, query or fragment",
        'on must be "true" or "false"',
        'mode must be "fast" or "safe"',
    ]


@pytest.mark.parametrize("size", ["0", "101", "-1", "1.0", "1e1", "٣", "9" * 5000, "0x10"])
def test_numbers_outside_their_range_are_errors(size: str) -> None:
    """They are never clamped."""
    with pytest.raises(SettingsError, match="size must be a whole number from 1 to 100"):
        read(Settings, {"key": "k", "size": size})


@pytest.mark.parametrize(
    "url",
    [
        *("http://api.example.com", "https://", "https://u:p@h", "https://u@h", "https://h/?k=1"),
        *(
            "https://h#f",
            "https://h:99999",
            "https://h:0",
            "https://h:x",
            "https://a b",
            "h",
            "//h",
        ),
        *(
            "https://h\\g",
            "https://h/a\\b",
            "https:\\\\h",
            "https://h/\x00",
            "https://h\x7f",
            "https://h%2fg",
        ),
        *("https://h/../a", "https://h/%2e%2E", "https://[::1", "https://h:80:80", "https://%68"),
        *("http://localhost\\g", "http://127.0.0.1\\@g", "http://127.0.0.1%2eg"),
        *("https://h/a?", "http://localhost.example.com", "http://127.0.0.1.example.com"),
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    """Plain http is only for loopback addresses; keys do not belong into addresses."""
    with pytest.raises(SettingsError, match="url must be an https:// address"):
        read(Settings, {"key": "k", "url": url})


@pytest.mark.parametrize(
    "url", ["http://localhost:8", "http://127.0.0.1:80/x", "http://[::1]:8", "https://h:8443/v1"]
)
def test_addresses_that_are_taken(url: str) -> None:
    """Without the slash at their end."""
    assert read(Settings, {"key": "k", "url": url + "/"}).url == url


@pytest.mark.parametrize("key", ["a b", "a\nb", "schlüssel", "a\x7f"])
def test_what_cannot_stand_in_a_header_is_no_token(key: str) -> None:
    """The error names the key before a request could show it."""
    with pytest.raises(SettingsError, match=r"^The configuration is wrong:\nkey must be ASCII"):
        read(Settings, {"key": key})


@pytest.mark.parametrize("value", [5, ["x"], {"a": 1}, True])
def test_what_is_no_text_is_an_error(value: Any) -> None:
    """The SDK promises text, so other types are not converted."""
    with pytest.raises(SettingsError, match="size must be"):
        read(Settings, {"key": "k", "size": value})


def test_unknown_keys_are_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    """The warning gives the nearest known name, where there is one."""
    read(Settings, {"key": "k", "sise": "5", "qqqqq": "1"})
    output = capsys.readouterr().out
    assert "'sise' is not known and has no effect; did you mean size?" in output
    assert "'qqqqq' is not known and has no effect" in output


def test_keys_that_do_not_agree() -> None:
    """They are reported with all other errors, from the values that could be read."""

    def check(values: Mapping[str, Any]) -> list[str]:
        return [f"size does not go with {values['mode']}"] if values["size"] == 7 else []

    assert read(Settings, {"key": "k", "size": "8"}, check).size == 8
    with pytest.raises(SettingsError) as error:
        read(Settings, {"size": "7"}, check)
    assert str(error.value).splitlines()[1:] == [
        "key is missing: From the account page",
        "size does not go with safe",
    ]
