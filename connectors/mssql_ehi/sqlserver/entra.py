"""Access tokens for Azure SQL, from Azure Active Directory (Microsoft Entra ID).

https://learn.microsoft.com/entra/identity-platform/v2-oauth2-client-creds-grant-flow
"""

import threading
from urllib.parse import urlsplit

from shared.errors import SourceError
from shared.network import Closed
from shared.oauth import AccessToken, request_token
from shared.rest import RestClient, Retry

# National clouds have a resource of their own.
# https://learn.microsoft.com/azure/azure-sql/database/aad-authentication-configure
_RESOURCES = {
    "login.microsoftonline.us": "https://database.usgovcloudapi.net",
    "login.partner.microsoftonline.cn": "https://database.chinacloudapi.cn",
}


class AccessTokens:
    """Called, the access token of a service principal; a new one when the last one nears its end.

    Usable from several threads. ``timeout``: for connecting and for reading, in seconds.
    ``closed``, when it is set, ends a request.
    """

    def __init__(
        self,
        authority: str,
        tenant: str,
        client: str,
        secret: str,
        timeout: float,
        retry: Retry,
        closed: Closed,
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
        self._client = RestClient(
            authority, timeout, retry, explain=lambda response: advice, closed=closed
        )
        self._lock = threading.Lock()
        self._token: AccessToken | None = None

    def __call__(self) -> str:
        """Raises SourceError."""
        with self._lock:
            if self._token is None or self._token.is_due:
                self._token = self._new()
            return self._token.value

    def _new(self) -> AccessToken:
        token = request_token(self._client, self._path, data=self._request)
        if token.renew_at is None:  # the server would refuse logins, and not say why
            raise SourceError(f"{self._client.base_url}{self._path}: no expires_in")
        return token
