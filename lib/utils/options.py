"""Types of command line options. argparse says what it did not get by the function's name."""

from __future__ import annotations


def positive_number(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def positive_integer(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value
