"""A headless Chromium for tests of pages; ``python -m tests.browser`` installs one where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
# WebGL without a GPU.
ARGUMENTS = ["--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def find_chromium() -> str:
    """Path of a Chromium of the system or of playwright; '' if there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), "")
    if found:
        return found
    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).is_file() else ""


def install() -> None:
    """By the system's packages where we may, else by playwright's download."""
    commands = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if shutil.which("apt-get") and os.geteuid() == 0:
        install = ["apt-get", "install", "-y", "-qq", "--no-install-recommends"]
        packages = ["chromium-headless-shell", "fonts-dejavu-core"]
        commands = [["apt-get", "update", "-qq"], [*install, *packages], *commands]
    for command in commands:
        if find_chromium():
            return
        subprocess.run(command, stdout=subprocess.DEVNULL, check=False)


if __name__ == "__main__":
    install()
    if not find_chromium():
        sys.exit("no Chromium could be installed; install one by hand, its tests are skipped until then")
