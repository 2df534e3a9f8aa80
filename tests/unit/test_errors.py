"""The guard: only safe text leaves with an error."""

import re
import traceback
from typing import Any

import pytest

from shared.errors import (
    ConnectorError,
    SourceError,
    UnexpectedError,
    redact_errors,
)


def inner(secret: str, error: Exception) -> None:
    row = {"name": secret}
    try:
        raise ValueError(row["name"])
    except ValueError as quoting:
        raise error from quoting


@redact_errors
def update(configuration: dict[str, str], state: dict[str, Any]) -> None:
    inner(configuration["secret"], state["error"])


def frames(error: BaseException) -> list[dict[str, Any]]:
    return [dict(frame.f_locals) for frame, _ in traceback.walk_tb(error.__traceback__)]


SECRET = "s3" + "cret"  # in two parts, since a traceback may show this line


@pytest.mark.parametrize("error", [SourceError("the endpoint failed"), KeyError(SECRET)])
def test_frames_are_emptied_and_chains_cut(error: Exception) -> None:
    """The SDK prints local variables and chained messages: nothing is left to print."""
    with pytest.raises(ConnectorError) as caught:
        update({"secret": SECRET}, state={"error": error})
    printed = "".join(traceback.format_exception(caught.value))
    assert SECRET not in printed
    assert "in inner" in printed  # the lines that it went through stay visible
    assert not any("secret" in local for local in frames(caught.value)[2:])
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


@pytest.mark.parametrize("shown", [False, True])
def test_an_unknown_error_is_named_by_its_type_and_place(
    monkeypatch: pytest.MonkeyPatch, shown: bool
) -> None:
    """Its message may quote data: only who asks for it sees it."""
    monkeypatch.setenv("CONNECTOR_DEBUG", "1" if shown else "0")
    with pytest.raises(UnexpectedError) as caught:
        update({"secret": "x"}, state={"error": KeyError("s3cret")})
    assert re.fullmatch(
        r"an unexpected KeyError in inner, line \d+ of test_errors.py(.*): please report it",
        str(caught.value),
    )
    assert ("s3cret" in str(caught.value)) == shown


def test_a_lack_of_memory_says_what_to_lower() -> None:
    """The sync ends with an error of ours."""
    with pytest.raises(SourceError, match=r"takes more memory than there is\. Lower the number"):
        update({"secret": "x"}, state={"error": MemoryError()})


def test_what_succeeds_is_returned() -> None:
    """The guard changes nothing else."""
    assert redact_errors(lambda configuration: [configuration["a"]])({"a": 1}) == [1]
