"""Access tokens for Azure SQL, from Azure Active Directory (Microsoft Entra ID).

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

import threading
import time
from typing import Any
from urllib.parse import urlsplit

from shared.errors import SourceError
from shared.rest import RestClient, Retry

_EARLY = 300.0  # seconds before its end at which a token is renewed
# National clouds have a resource of their own.
# https://learn.microsoft.com/azure/azure-sql/database/aad-authentication-configure
_RESOURCES = {
    "login.microsoftonline.us": "https://database.usgovcloudapi.net",
    "login.partner.microsoftonline.cn": "https://database.chinacloudapi.cn",
}


class AccessTokens:
    """Called, the access token of a service principal; a new one when the last one nears its end.

    Usable from several threads. ``timeout``: seconds of silence that end a request.
    """

    def __init__(
        self, authority: str, tenant: str, client: str, secret: str, timeout: float, retry: Retry
    ) -> None:
        resource = _RESOURCES.get(
            urlsplit(authority).hostname or "", "https://database.windows.net"
        )
        self._path = f"/{tenant}/oauth2/v2.0/token"
        self._request = {
            "grant_type": "client_credentials",
            "client_id": client,
            "client_secret": secret,
            "scope": f"{resource}/.default",
        }
        advice = "Check mssql_tenant_id, mssql_client_id and mssql_client_secret"
        self._client = RestClient(authority, timeout, retry, explain=lambda response: advice)
        self._lock, self._token, self._renew_at = threading.Lock(), "", 0.0

    def __call__(self) -> str:
        """Raises SourceError."""
        with self._lock:
            if time.monotonic() >= self._renew_at:
                asked = time.monotonic()
                response = self._client.post(self._path, data=self._request)
                self._token, lifetime = _parse(response)
                self._renew_at = asked + max(lifetime - _EARLY, lifetime / 2)
            return self._token


def _parse(response: Any) -> tuple[str, float]:
    try:
        token, lifetime = response["access_token"], float(response["expires_in"])
        if isinstance(token, str) and token and lifetime > 0:
            return token, lifetime
    except (KeyError, TypeError, ValueError):
        pass
    raise SourceError("the token endpoint answers without an access_token and its expires_in")
