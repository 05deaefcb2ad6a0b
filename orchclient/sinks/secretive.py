"""What every destination that holds a secret has in common: it shows its name only, and is not pickled."""

from __future__ import annotations

from typing import NoReturn


class Secretive:
    """Neither its repr nor a pickle gives away what it ``holds``."""

    name: str
    holds = "a secret"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"{type(self).__name__} holds {self.holds} and is not pickled: make another one")
