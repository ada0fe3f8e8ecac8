"""What gets the bodies of a stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from .capture import Frame
from .engine import LiveBody


class Sink:
    """Gets the pictures and the bodies of a stream as they come; made of what its option says.

    Class attributes: ``metavar`` and ``text``, what ``--help`` says; ``default``: what the option means
    without a value, None if it needs one.
    """

    metavar: ClassVar[str]
    text: ClassVar[str]
    default: ClassVar[str | None] = None

    def __init__(self, target: str) -> None:
        """Raises UserError if ``target`` is of no use."""

    def begin(self, delay: int) -> None:
        """The stream begins. Bodies come ``delay`` frames after their pictures."""

    def picture(self, frame: Frame) -> None:
        """A picture that is being looked at; its bodies come later."""

    def bodies(self, bodies: Sequence[LiveBody]) -> None:
        """What is known after that picture and was not before; of any person frames increase."""

    def close(self) -> None:
        """The stream has ended."""
