"""Things looked up by name, each kind next to what it holds; docs/plugins.md tells how to add to them."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from typing import Any, TypeVar

from .errors import UserError, shown

T = TypeVar("T")


class Registry(dict[str, T]):
    """A mapping from names, which users choose from, to things. An unknown name is the user's mistake.

    Args:
        kind: what it holds, for messages.
        option: where a name is given, as ``MODEL.EXTRACTOR`` or ``--export``; '' where several take it.
    """

    def __init__(self, kind: str, option: str = "") -> None:
        super().__init__()
        self.kind, self.option = kind, option

    def add(self, name: str, thing: T) -> T:
        """Register a thing, and give it back.

        Raises:
            UserError: the name is taken.
        """
        if name in self:
            raise UserError(f"the name {shown(name)!r} of a {self.kind} is taken: register yours by another")
        self[name] = thing
        return thing

    def register(self, name: str) -> Callable[[Any], Any]:
        """:meth:`add` as a decorator of a class or function."""
        return lambda thing: self.add(name, thing)

    def find(self, name: str, option: str = "") -> T:
        """What has that name, which was given with ``option``, by default the registry's.

        Raises:
            UserError: nothing has. ``self[name]`` raises the same.
        """
        if name in self:
            return self[name]
        option = option or self.option
        likely = get_close_matches(str(name), self, n=1)
        known = ", ".join(self) + (f"; did you mean {likely[0]}?" if likely else "")
        raise UserError(
            f"{option}{': ' * bool(option)}there is no {self.kind} {shown(name)!r}; expected any of {known}"
        )

    __missing__ = find
