"""Access tokens of OAuth 2.0 (RFC 6749, 5.1): what a token endpoint sends, and when to renew."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeGuard

import requests

from . import times
from .errors import SourceError
from .rest import RestClient
from .settings import TOKEN

_LONGEST = 32 * 1024  # characters of a token; no server takes a longer header
_EARLY = 300.0  # seconds before its end at which a token is renewed


@dataclass(frozen=True, repr=False)
class AccessToken:
    """``refresh_token``: "" if there is none. ``renew_at``: None if the source does not say how
    long the token is valid, so that only a refusal tells."""

    value: str
    refresh_token: str = ""
    renew_at: datetime | None = None

    @property
    def is_due(self) -> bool:
        """Whether it is time to renew the token."""
        return self.renew_at is not None and times.now() >= self.renew_at


def request_token(client: RestClient, path: str, **content: Any) -> AccessToken:
    """A new token from the endpoint at ``path``; ``content``: ``data=`` or ``json=``, as requests
    takes them. Raises SourceError."""
    sent, where = times.now(), f"{client.base_url}{path}"

    def note_time(request: requests.PreparedRequest) -> requests.PreparedRequest:
        nonlocal sent
        sent = times.now()  # of each try: a retry may come an hour later
        return request

    token: AccessToken = client.post(
        path, lambda response: parse_token(response, where, sent), auth=note_time, **content
    )
    return token


def parse_token(response: Any, where: str, requested: datetime) -> AccessToken:
    """The token in ``response``, which the token endpoint ``where`` sent to a request of the time
    ``requested``.

    A token is renewed five minutes before it expires, or at half of its lifetime if that is later.
    A lifetime of 0, or one that is no number, is not stated; one beyond the year 9999 does not
    end. Only the access token is required: the request may have used up what could get another
    one. A refresh token that is none is left out. Raises SourceError if there is no access token,
    or one that no header can hold.
    """
    fields = response if isinstance(response, dict) else {}
    value = fields.get("access_token")
    if not is_token(value):
        raise SourceError(f"{where}: the response holds no usable access token")
    given = fields.get("refresh_token")
    refresh_token = str(given) if type(given) is int else given
    return AccessToken(
        value,
        refresh_token if is_token(refresh_token) else "",
        _renewal(requested, fields.get("expires_in")),
    )


def is_token(value: Any) -> TypeGuard[str]:
    """Whether ``value`` is a token, as it can stand in a header."""
    try:
        return isinstance(value, str) and 0 < len(TOKEN.parse(value)) <= _LONGEST
    except ValueError:
        return False


def _renewal(requested: datetime, expires_in: Any) -> datetime | None:
    if isinstance(expires_in, bool) or "_" in str(expires_in):  # Python takes both for numbers
        return None
    try:
        lifetime = float(expires_in or 0)
        valid = max(lifetime - _EARLY, lifetime / 2)
        return requested + timedelta(seconds=valid) if valid > 0 else None
    except (TypeError, ValueError, OverflowError):
        return None
