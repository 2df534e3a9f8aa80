"""OAuth2 tokens that a sync renews, and keeps in the state for the next one."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any

import requests
from cryptography.fernet import Fernet, InvalidToken
from fivetran_connector_sdk import Logging
from requests.auth import AuthBase

from shared import times
from shared.errors import SourceError
from shared.state import State


class Tokens(AuthBase):
    """The tokens in use: the configuration's or, after a renewal, those in the state.

    Dentally may take a refresh token only once, and a sync cannot write the configuration. So a
    new pair is sealed with a key made from ``client_secret`` and goes into the state at once.
    Tokens that somebody has put into the configuration since then win: ``replaced`` in the state
    is the fingerprint of those that the sealed ones came from. ``refresh`` asks for new ones by
    a refresh token.
    """

    def __init__(
        self,
        client_secret: str,
        access_token: str,
        refresh_token: str,
        refresh: Callable[[str], Any],
        saved: State,
    ) -> None:
        self._ask, self._saved, self._lock = refresh, saved, threading.Lock()
        secret = client_secret.encode()
        key = hmac.digest(secret, b"dentally: tokens in the state", "sha256")
        self._seal = Fernet(base64.urlsafe_b64encode(key))
        given = f"{access_token}\n{refresh_token}".encode()
        self._fingerprint = hmac.new(secret, given, hashlib.sha256).hexdigest()[:16]
        self._use(access_token, refresh_token, None)
        sealed = saved.values.get("tokens") or {}
        if sealed.get("replaced") == self._fingerprint:
            self._unseal(sealed)

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._access_token}"
        return request

    def renew(self, refused: requests.PreparedRequest, refusals: int) -> bool:
        """After a 401: whether there is another access token than the one that was refused."""
        with self._lock:
            if (
                refusals == 1
                and refused.headers["Authorization"] == f"Bearer {self._access_token}"
            ):
                self._refresh()
        return refusals == 1

    def refresh_if_near_end(self) -> None:
        """Renews tokens that are known to end soon, so that no listing has to."""
        with self._lock:
            if self._renew_at and times.now() >= self._renew_at:
                self._refresh()

    def _refresh(self) -> None:
        response = self._ask(self._refresh_token)
        try:
            access = response["access_token"]
            # Without a new refresh token the old one stays in use.
            refresh = response.get("refresh_token") or self._refresh_token
            lifetime = float(response.get("expires_in") or 0)
            if not (isinstance(access, str) and access and isinstance(refresh, str)):
                raise ValueError
            end = times.now() + timedelta(seconds=0.9 * lifetime) if lifetime > 0 else None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise SourceError("/oauth/token: the response holds no usable access token") from None
        self._use(access, refresh, end)
        renew_at = times.to_text(end) if end else None
        content = json.dumps({"access": access, "refresh": refresh, "renew_at": renew_at})
        sealed = self._seal.encrypt(content.encode()).decode()
        self._saved.save(tokens={"sealed": sealed, "replaced": self._fingerprint})
        Logging.info("The access token was renewed; the new tokens are sealed in the state")

    def _unseal(self, sealed: Mapping[str, str]) -> None:
        try:
            content = json.loads(self._seal.decrypt(sealed["sealed"]))
            renew_at = content["renew_at"] and times.parse(content["renew_at"])
            self._use(content["access"], content["refresh"], renew_at)
        except (InvalidToken, KeyError, TypeError, ValueError):
            Logging.warning(
                "The tokens in the state cannot be unsealed (is client_secret another one now?): "
                "those of the configuration are used"
            )

    def _use(self, access_token: str, refresh_token: str, renew_at: datetime | None) -> None:
        self._access_token, self._refresh_token = access_token, refresh_token
        self._renew_at = renew_at
