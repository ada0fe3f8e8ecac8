"""Show a finished video in the web browser (``--display``), which every desktop has."""

from __future__ import annotations

import html
import logging
import webbrowser
from pathlib import Path
from urllib.parse import quote

from ..utils.files import atomic_write

log = logging.getLogger(__name__)

_PAGE = """<!doctype html>
<meta charset="utf-8">
<title>{name}</title>
<style>body {{ margin: 0; background: #111; }} video {{ width: 100vw; height: 100vh; }}</style>
<video src="{source}" controls autoplay loop muted></video>
"""


def show_video(video: str | Path) -> Path:
    """Write ``{video}.html`` beside the video, open it in the browser, and return its path.

    Without a browser a warning says where the page is.
    """
    video = Path(video)
    page = video.with_suffix(".html")
    with atomic_write(page) as temporary:
        temporary.write_text(
            _PAGE.format(name=html.escape(video.stem), source=quote(video.name)), encoding="utf-8"
        )
    if not webbrowser.open(page.resolve().as_uri()):
        log.warning("--display: no web browser found; open %s yourself", page)
    return page
