"""The demo's options about camera and world."""

from __future__ import annotations

import pytest

from lib.commands.demo import parse_args
from lib.demo.options import DemoOptions, heights_of, parse_heights
from lib.demo.pipeline import run_demo
from lib.utils.errors import UserError


@pytest.mark.parametrize("focal", [0.0, -3.0, float("nan"), float("inf")])
def test_wrong_focal_length(focal: float) -> None:
    with pytest.raises(UserError, match=r"^--focal .*: expected a focal length in pixels[^\n]*$"):
        run_demo(DemoOptions(vid_file="absent.mp4", focal=focal))


@pytest.mark.parametrize("height", ["tall", "0", "-1", "9", "nan", "1=", "a=1.8", "1=1.8,", "1.8 m"])
def test_wrong_height(height: str) -> None:
    with pytest.raises(UserError, match=r"^--height .*: expected metres between 0.5 and 2.6[^\n]*$"):
        run_demo(DemoOptions(vid_file="absent.mp4", height=height))


def test_heights_of_people() -> None:
    assert heights_of(parse_heights(""), [1, 2]) == {}
    assert heights_of(parse_heights("1.8"), [1, 2]) == {1: 1.8, 2: 1.8}
    assert heights_of(parse_heights("2=1.62"), [1, 2]) == {2: 1.62}
    assert heights_of(parse_heights("1.8, 2=1.62"), [1, 2]) == {1: 1.8, 2: 1.62}
    with pytest.raises(UserError, match=r"^--height of person 3: .*one of 1, 2$"):
        heights_of(parse_heights("3=1.7"), [1, 2])


def test_command_line() -> None:
    args = parse_args([])
    assert (args.focal, args.height, args.up, args.lock_feet) == (None, "", "floor", True)
    args = parse_args(["--focal", "1500", "--height", "1.8", "--up", "camera", "--no-lock-feet"])
    assert (args.focal, args.height, args.up, args.lock_feet) == (1500.0, "1.8", "camera", False)
