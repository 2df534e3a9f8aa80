"""OAuth2 tokens that a sync renews, and keeps in the state for the next one."""

import hashlib
import hmac
import threading
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import requests
from fivetran_connector_sdk import Logging
from requests.auth import AuthBase

from shared import times
from shared.encryption import Encryption
from shared.oauth import AccessToken, is_token
from shared.state import State

_CONTEXT = "dentally: tokens in the state"


class Tokens(AuthBase):
    """The tokens in use: the configuration's or, after a renewal, those in the state.

    Dentally may take a refresh token only once, and a sync cannot write the configuration. So new
    tokens go into the state at once, encrypted with a key made from ``client_secret``. Tokens that
    somebody has put into the configuration since then win: ``replaced`` in the state is the
    fingerprint of those that the encrypted ones came from. ``refresh`` requests new tokens with a
    refresh token. The state holds

    sealed    the tokens, encrypted: {"access", "refresh", "renew_at"}
    replaced  the fingerprint of the configuration's tokens
    """

    def __init__(
        self,
        client_secret: str,
        access_token: str,
        refresh_token: str,
        refresh: Callable[[str], AccessToken],
        saved: State,
    ) -> None:
        self._request_tokens, self._saved, self._lock = refresh, saved, threading.Lock()
        secret = client_secret.encode()
        # What versions up to 0.1.0 encrypted.
        older_key = hmac.digest(secret, _CONTEXT.encode(), "sha256")
        self._encryption = Encryption(client_secret, _CONTEXT, [older_key])
        given = f"{access_token}\n{refresh_token}".encode()
        self._fingerprint = hmac.new(secret, given, hashlib.sha256).hexdigest()[:16]
        self._token = AccessToken(access_token, refresh_token)
        kept = saved.values.get("tokens") or {}
        if not isinstance(kept, dict) or kept.get("replaced") == self._fingerprint:
            self._restore(kept)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token.value}"
        return request

    def renew(self, refused: requests.PreparedRequest, refusals: int) -> bool:
        """After a 401: whether there is another access token than the one that was refused."""
        with self._lock:
            used = refused.headers["Authorization"]
            if refusals == 1 and used == f"Bearer {self._token.value}":
                self._renew()
        return refusals == 1

    def renew_if_due(self) -> None:
        """Renews a token that is known to expire soon, so that no listing has to."""
        with self._lock:
            if self._token.is_due:
                self._renew()

    def _renew(self) -> None:
        renewed = self._request_tokens(self._token.refresh_token)
        # Without a new refresh token the old one stays in use.
        refresh_token = renewed.refresh_token or self._token.refresh_token
        self._token = AccessToken(renewed.value, refresh_token, renewed.renew_at)
        content = {
            "access": renewed.value,
            "refresh": refresh_token,
            "renew_at": times.to_text(renewed.renew_at) if renewed.renew_at else None,
        }
        sealed = self._encryption.encrypt(content)
        self._saved.save(tokens={"sealed": sealed, "replaced": self._fingerprint})
        Logging.info("The access token was renewed; the state holds the new tokens, encrypted")

    def _restore(self, kept: Mapping[str, Any]) -> None:
        try:
            content = self._encryption.decrypt(kept["sealed"])
            access, refresh = content["access"], content["refresh"]
        except (KeyError, TypeError, ValueError):
            Logging.warning(
                "The tokens in the state cannot be decrypted: those of the configuration are used"
            )
            return
        if not (is_token(access) and is_token(refresh)):
            Logging.warning(
                "The tokens in the state cannot be sent: those of the configuration are used"
            )
            return
        self._token = AccessToken(access, refresh, _moment(content.get("renew_at")))


def _moment(text: Any) -> datetime | None:
    """None for one that cannot be read: then only a refusal tells that a token has expired."""
    try:
        return times.parse(text) if text else None
    except (TypeError, ValueError):
        return None
