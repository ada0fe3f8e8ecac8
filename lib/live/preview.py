"""A page on this machine that shows the picture and the skeletons of a stream."""

from __future__ import annotations

import logging
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Condition, Thread
from typing import Any

import cv2
import numpy as np

from ..utils.colours import person_colour
from ..utils.errors import UserError
from .capture import Frame
from .engine import LiveBody
from .sink import Sink

log = logging.getLogger(__name__)

_HOST = "127.0.0.1"
_LONGEST, _QUALITY = 960, 80  # px of the longer side, and JPEG's measure
_MORE = 8  # pictures remembered beside those that wait for their bodies
_BOUNDARY = "picture"
_WAKE = 0.5  # seconds after which a viewer that waits looks whether there is more to come
_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>TCMR live</title>
<link rel="icon" href="data:,">
<style>html,body{margin:0;height:100%;background:#16181c}
img{width:100%;height:100%;object-fit:contain}</style>
<img src="stream" alt="the picture, with skeletons">"""


class Preview(Sink):
    """Serves the newest picture whose bodies are known; draws only while somebody looks.

    The page is for browsers of this machine alone: it listens on 127.0.0.1, and answers under that name (a
    page of another site cannot read it by naming this machine its own).
    """

    metavar = "PORT"
    text = "show the picture with skeletons on a page of this machine; port 0 (default): a free one"
    default = "0"

    def __init__(self, target: str) -> None:
        if not target.isdecimal() or int(target) > 65535:
            raise UserError(f"--preview {target}: expected the number of a port, or nothing for a free one")
        try:
            self._server = _Server((_HOST, int(target)), _Handler)
        except OSError as error:
            raise UserError(
                f"--preview {target}: port {target} cannot be had ({error.strerror}); give another, or none "
                "for a free one"
            ) from error
        self._server.preview = self
        self.url = f"http://{_HOST}:{self._server.server_port}/"
        self.begin(0)
        self._changed = Condition()
        self._shown: _Picture | None = None
        self._over = False
        self._viewers = 0
        Thread(target=self._server.serve_forever, args=(0.1,), name="preview", daemon=True).start()
        log.info("preview: %s", self.url)

    def begin(self, delay: int) -> None:
        self._delay = delay
        self._pictures: deque[_Picture] = deque(maxlen=delay + _MORE)

    def picture(self, frame: Frame) -> None:
        if self._viewers:
            scale = min(1.0, _LONGEST / max(frame.image.shape[:2]))
            small = cv2.resize(frame.image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
            self._pictures.append(_Picture(frame.number, small, scale, []))

    def bodies(self, bodies: Sequence[LiveBody]) -> None:
        waiting = {picture.number: picture for picture in self._pictures}
        for body in bodies:
            if body.frame in waiting:
                waiting[body.frame].bodies.append(body)
        known = [number for number in waiting if number <= max(waiting) - self._delay]
        if known:
            with self._changed:
                self._shown = waiting[max(known)]
                self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()
        self._server.shutdown()
        self._server.server_close()

    def next_picture(self, after: int) -> tuple[int, bytes] | None:
        """The first JPEG to be had of a later frame than ``after``, and its number; None at the end."""
        with self._changed:
            while not self._over and (self._shown is None or self._shown.number <= after):
                self._changed.wait(_WAKE)
            if self._over or self._shown is None:
                return None
            picture = self._shown
        return picture.number, picture.jpeg()

    @contextmanager
    def viewing(self) -> Iterator[None]:
        """Somebody looks, while the block runs."""
        with self._changed:
            self._viewers += 1
        try:
            yield
        finally:
            with self._changed:
                self._viewers -= 1


@dataclass(frozen=True, eq=False)
class _Picture:
    """A frame, ``scale`` times its size, and who is in it."""

    number: int
    image: np.ndarray
    scale: float
    bodies: list[LiveBody]

    def jpeg(self) -> bytes:
        canvas = cv2.cvtColor(self.image, cv2.COLOR_RGB2BGR)
        for body in self.bodies:
            draw_skeleton(canvas, body, self.scale)
        return cv2.imencode(".jpg", canvas, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])[1].tobytes()


def draw_skeleton(image: np.ndarray, body: LiveBody, scale: float = 1.0) -> None:
    """Draw a person's joints and the bones between them into a BGR image, ``scale`` times the picture's
    size."""
    width = max(2, max(image.shape[:2]) // 320)
    ink = [round(255 * part) for part in person_colour(body.person_id - 1)[::-1]]
    places = (scale * body.pixels).clip(-10_000, 10_000)
    points = [(round(float(x)), round(float(y))) for x, y in places]
    for joint, parent in enumerate(body.skeleton.parents.tolist()):
        if parent >= 0:
            cv2.line(image, points[parent], points[joint], ink, width, cv2.LINE_AA)
    for point in points:
        cv2.circle(image, point, width + 1, ink, cv2.FILLED, cv2.LINE_AA)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    preview: Preview

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], OSError):  # which is a viewer that has gone
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{_HOST}:{port}", f"localhost:{port}"):
            self.send_error(403)
        elif self.path == "/":
            self._begin("text/html; charset=utf-8")
            self.wfile.write(_PAGE.encode())
        elif self.path == "/stream":
            self._stream()
        else:
            self.send_error(404)

    def _begin(self, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header(
            "Content-Security-Policy", "default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"
        )
        self.end_headers()

    def _stream(self) -> None:
        preview, number = self.server.preview, -1
        self._begin(f"multipart/x-mixed-replace; boundary={_BOUNDARY}")
        with preview.viewing():
            while (found := preview.next_picture(number)) is not None:
                number, picture = found
                head = f"--{_BOUNDARY}\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture)}\r\n\r\n"
                self.wfile.write(head.encode() + picture + b"\r\n")

    def log_message(self, *_: Any) -> None:
        """Nothing."""
