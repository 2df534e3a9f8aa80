"""Positions hold values of keys, and the SDK prints the state: so they stand in it sealed."""

import base64
import hashlib
import json
from typing import Any

from cryptography.fernet import Fernet, InvalidToken


class Seal:
    """Encrypts with a key made from ``secret``, slowly, since a password can be guessed."""

    def __init__(self, secret: str, salt: str) -> None:
        key = hashlib.scrypt(secret.encode(), salt=salt.encode(), n=2**14, r=8, p=1, dklen=32)
        self._fernet = Fernet(base64.urlsafe_b64encode(key))

    def close(self, value: Any) -> str:
        return self._fernet.encrypt(json.dumps(value).encode()).decode()

    def open(self, sealed: str) -> Any:
        """The value. Raises ValueError if it was sealed with another secret."""
        try:
            return json.loads(self._fernet.decrypt(sealed))
        except InvalidToken:
            raise ValueError("sealed with another secret") from None
