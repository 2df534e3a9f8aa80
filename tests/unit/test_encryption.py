"""Values in the state that only the secret opens."""

import base64
import hmac
from typing import Any

import pytest
from cryptography.fernet import Fernet

from shared.encryption import Encryption

VALUE = {"access": "a", "position": [1, "é", None]}


def test_what_was_encrypted_can_be_decrypted() -> None:
    """By another object of the same secret and salt; the text holds nothing of the value."""
    text = Encryption("secret", "salt").encrypt(VALUE)
    assert Encryption("secret", "salt").decrypt(text) == VALUE
    assert "access" not in text
    assert text != Encryption("secret", "salt").encrypt(VALUE)


@pytest.mark.parametrize(
    ("secret", "salt", "changed"),
    [("other", "salt", None), ("secret", "other", None), ("secret", "salt", "not encrypted")],
)
def test_what_another_secret_encrypted_is_an_error(
    secret: str, salt: str, changed: str | None
) -> None:
    """As is text that nobody encrypted, and what is no text."""
    text = changed or Encryption("secret", "salt").encrypt(VALUE)
    with pytest.raises(ValueError, match="encrypted with another secret"):
        Encryption(secret, salt).decrypt(text)


@pytest.mark.parametrize("value", [None, 7, [], {}])
def test_what_is_no_text_is_an_error(value: Any) -> None:
    """A state may hold anything."""
    with pytest.raises(ValueError, match="encrypted with another secret"):
        Encryption("secret", "salt").decrypt(value)


def test_older_keys_decrypt_and_do_not_encrypt() -> None:
    """What an earlier version left is opened; from then on the new key is used."""
    older = hmac.digest(b"secret", b"context", "sha256")
    text = Fernet(base64.urlsafe_b64encode(older)).encrypt(b'{"a": 1}').decode()
    assert Encryption("secret", "salt", [older]).decrypt(text) == {"a": 1}
    new = Encryption("secret", "salt", [older]).encrypt(1)
    assert Encryption("secret", "salt").decrypt(new) == 1
