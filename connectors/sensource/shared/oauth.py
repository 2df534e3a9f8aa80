"""Access tokens of OAuth 2.0 (RFC 6749, 5.1): what a token endpoint sends, and when to renew."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import requests

from . import times
from .errors import SourceError
from .rest import RestClient
from .settings import TOKEN

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
    one. Raises SourceError if there is none, or one that no header can hold.
    """
    try:
        value = TOKEN.parse(response["access_token"] or " ")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise SourceError(f"{where}: the response holds no usable access token") from None
    refresh_token = response.get("refresh_token")
    text = str(refresh_token) if isinstance(refresh_token, (str, int)) else ""
    return AccessToken(value, text, _renewal(requested, response.get("expires_in")))


def _renewal(requested: datetime, expires_in: Any) -> datetime | None:
    try:
        lifetime = float(expires_in or 0)
        valid = max(lifetime - _EARLY, lifetime / 2)
        return requested + timedelta(seconds=valid) if valid > 0 else None
    except (TypeError, ValueError, OverflowError):
        return None
