"""Values in the state that only the configuration's secret opens: the SDK prints the state."""

import base64
import functools
import hashlib
import json
from collections.abc import Sequence
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet


class Encryption:
    """Encrypts with a key made from ``secret`` and ``salt``, slowly, since a password can be
    guessed. ``older_keys``, of 32 bytes, decrypt what earlier versions encrypted with them."""

    def __init__(self, secret: str, salt: str, older_keys: Sequence[bytes] = ()) -> None:
        self._secret, self._salt, self._older_keys = secret, salt, older_keys

    @functools.cached_property
    def _fernet(self) -> MultiFernet:
        # Many syncs need no key, and this one takes 50 ms.
        salt = self._salt.encode()
        key = hashlib.scrypt(self._secret.encode(), salt=salt, n=2**14, r=8, p=1, dklen=32)
        keys = [key, *self._older_keys]
        return MultiFernet([Fernet(base64.urlsafe_b64encode(each)) for each in keys])

    def encrypt(self, value: Any) -> str:
        """``value``, which JSON can hold, as text."""
        return self._fernet.encrypt(json.dumps(value).encode()).decode()

    def decrypt(self, text: str) -> Any:
        """The value. Raises ValueError if it was encrypted with another secret."""
        try:
            return json.loads(self._fernet.decrypt(text))
        except (InvalidToken, TypeError, AttributeError):
            raise ValueError("encrypted with another secret") from None
