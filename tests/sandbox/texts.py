"""Made-up texts. Faker is slow, so each kind of text is drawn from a pool that is made once."""

import functools
import random
from typing import Any

from faker import Faker

_POOL = 300  # texts of each kind


class Texts:
    """The methods of Faker, such as ``company()`` or ``bothify("??-##")``; texts come twice."""

    def __init__(self, locales: tuple[str, ...], seed: int) -> None:
        self._locales, self._random = locales, random.Random(seed)

    def __getattr__(self, kind: str) -> Any:
        return lambda *form: self._random.choice(_pool(self._locales, kind, form))


@functools.cache
def _pool(locales: tuple[str, ...], kind: str, form: tuple[str, ...]) -> list[str]:
    fake = Faker(list(locales))
    fake.seed_instance(f"{kind}{form}")
    return [getattr(fake, kind)(*form) for _ in range(_POOL)]
