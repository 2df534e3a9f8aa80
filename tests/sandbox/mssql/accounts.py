"""Windows accounts, whose logins the server's side of pyspnego verifies."""

from __future__ import annotations

import base64
import os
import threading
from pathlib import Path
from unittest import mock

import spnego
from spnego._ntlm_raw.crypto import ntowfv1
from spnego.exceptions import SpnegoError

# pyspnego finds the accounts by an environment variable, which all servers of a process share.
_ENVIRONMENT = threading.Lock()


class Accounts:
    """The accounts of the domains that a server trusts."""

    def __init__(self, folder: Path) -> None:
        self._store = folder / "accounts"
        self._lines: list[str] = []
        self._logins: set[str] = set()

    def add(self, domain: str, user: str, password: str, *, has_login: bool = True) -> None:
        """``has_login``: the account may log in to this server, too."""
        # The form of smbpasswd, since a colon in a password would end it in the other one.
        digest = base64.b16encode(ntowfv1(password)).decode()
        account = f"{domain}\\{user}"
        self._lines.append(f"{account}:1000:{'0' * 32}:{digest}:[U]:LCT-00000000")
        self._store.write_text("\n".join(self._lines), encoding="utf-8")
        if has_login:
            self._logins.add(account.upper())

    def may_log_in(self, account: str) -> bool:
        return account.upper() in self._logins

    def exchange(self) -> Exchange:
        return Exchange(self._store)


class Exchange:
    """One login."""

    def __init__(self, store: Path) -> None:
        if not store.exists():
            store.touch()
        self._environment = {"NTLM_USER_FILE": str(store), "LM_COMPAT_LEVEL": "5"}  # NTLMv2 alone
        with _ENVIRONMENT, mock.patch.dict(os.environ, self._environment):
            self._context = spnego.server(
                protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm
            )

    def challenge(self, message: bytes) -> bytes:
        """Raises SpnegoError."""
        return self._context.step(message) or b""

    def account(self, response: bytes) -> str:
        """The account whose response to the challenge is right, "" if it is none's."""
        with _ENVIRONMENT, mock.patch.dict(os.environ, self._environment):
            try:
                self._context.step(response)
            except SpnegoError:
                return ""
        return self._context.client_principal or ""
