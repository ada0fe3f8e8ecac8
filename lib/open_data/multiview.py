"""Several calibrated cameras: reading a calibration and triangulating points seen by them. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
from jaxtyping import Float, Shaped

from ..utils.errors import UserError


@dataclass(frozen=True)
class Camera:
    """A pinhole camera with lens distortion.

    ``K`` px; ``distortion`` in OpenCV's order; ``t`` m: a world point X is at R·X + t in the camera's axes
    (x right, y down, z forward). ``width``, ``height``: the image in px.
    """

    name: str
    K: Float[np.ndarray, "3 3"]
    distortion: Float[np.ndarray, " 5"]
    R: Float[np.ndarray, "3 3"]
    t: Float[np.ndarray, " 3"]
    width: int
    height: int


def read_qualisys(path: str | Path) -> list[Camera]:
    """Cameras of a Qualisys calibration (``.qca.txt``, XML). Raises UserError if it is missing or broken."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f"{path}: no such calibration file")
    try:
        nodes = ElementTree.parse(path).getroot().findall("cameras/camera")
        cameras = [_qualisys_camera(node) for node in nodes]
    except (ElementTree.ParseError, KeyError, ValueError) as error:
        raise UserError(f"{path} is not a Qualisys calibration ({error!r})") from error
    if not cameras:
        raise UserError(f"{path} holds no cameras")
    return cameras


def _qualisys_camera(node: ElementTree.Element) -> Camera:
    def numbers(tag: str, *keys: str) -> np.ndarray:
        found = node.find(tag)
        if found is None:
            raise KeyError(tag)
        return np.array([float(found.attrib[key]) for key in keys])

    # Qualisys counts in 1/64 px and mm, gives the camera's position, and has y up and z backwards.
    rotation = numbers("transform", *(f"r{i}{j}" for i in "123" for j in "123")).reshape(3, 3)
    rotation = np.diag([1.0, -1.0, -1.0]) @ rotation
    position = numbers("transform", "x", "y", "z") / 1000
    fu, fv, cu, cv = numbers("intrinsic", "focalLengthU", "focalLengthV", "centerPointU", "centerPointV") / 64
    radial = numbers("intrinsic", *(f"radialDistortion{i}" for i in "123"))
    tangential = numbers("intrinsic", "tangentalDistortion1", "tangentalDistortion2")
    left, top, right, bottom = numbers("fov_video", "left", "top", "right", "bottom")
    return Camera(
        name=node.attrib["serial"],
        K=np.array([[fu, 0, cu], [0, fv, cv], [0, 0, 1]]),
        distortion=np.array([*radial[:2], *tangential, radial[2]]),
        R=rotation,
        t=-rotation @ position,
        width=int(right - left) + 1,
        height=int(bottom - top) + 1,
    )


def to_camera(points: Float[np.ndarray, "*batch 3"], camera: Camera) -> Float[np.ndarray, "*batch 3"]:
    """World points -> the camera's axes, both in m."""
    moved: np.ndarray = points @ camera.R.T + camera.t
    return moved


def project(points: Float[np.ndarray, "*batch 3"], camera: Camera) -> Float[np.ndarray, "*batch 2"]:
    """World points in m -> distorted pixels."""
    flat = np.ascontiguousarray(points, dtype=np.float64).reshape(-1, 1, 3)
    pixels, _ = cv2.projectPoints(flat, cv2.Rodrigues(camera.R)[0], camera.t, camera.K, camera.distortion)
    return pixels.reshape(*points.shape[:-1], 2)


def undistort(pixels: Float[np.ndarray, "*batch 2"], camera: Camera) -> Float[np.ndarray, "*batch 2"]:
    """Pixels -> coordinates on the plane z = 1 of an ideal camera."""
    flat = np.ascontiguousarray(pixels, dtype=np.float64).reshape(-1, 1, 2)
    return cv2.undistortPoints(flat, camera.K, camera.distortion).reshape(pixels.shape)


def triangulate(
    pixels: Float[np.ndarray, "c *batch 2"],
    weights: Shaped[np.ndarray, " c *batch"],
    cameras: Sequence[Camera],
    *,
    tolerance: float = 0.015,
    iterations: int = 10,
) -> tuple[Float[np.ndarray, "*batch 3"], Float[np.ndarray, " c *batch"]]:
    """World points from their images, little disturbed by views that are wrong.

    weights: >= 0, trust in each image point of the c cameras (0 = not seen). Starts from the pair of cameras
    that the others agree with best and minimises the Cauchy loss of the reprojection error with scale
    ``tolerance`` (on the plane z = 1, so in radians). Returns points in m and the reprojection errors on that
    plane. Points with fewer than two weights > 0 are NaN.
    """
    shape = pixels.shape[1:-1]
    n_views = len(cameras)
    seen = np.stack([undistort(p, c) for p, c in zip(pixels, cameras, strict=True)]).reshape(n_views, -1, 2)
    trust = np.asarray(weights, dtype=np.float64).reshape(n_views, -1)
    R = np.stack([c.R for c in cameras])
    t = np.stack([c.t for c in cameras])

    best = np.full((seen.shape[1], 3), np.nan)
    best_loss = np.full(seen.shape[1], np.inf)
    for pair in itertools.combinations(range(n_views), 2):
        chosen = list(pair)
        usable = (trust[chosen] > 0).all(axis=0)
        points = _least_squares(seen[chosen], np.ones_like(trust[chosen]), R[chosen], t[chosen])
        errors = _errors(points, seen, R, t)
        loss = (trust * np.log1p((errors / tolerance) ** 2)).sum(axis=0)
        better = usable & (loss < best_loss)
        best[better], best_loss[better] = points[better], loss[better]

    found = np.isfinite(best_loss)
    seen, trust, points = seen[:, found], trust[:, found], best[found]
    for _ in range(iterations):
        depth = np.maximum(_in_cameras(points, R, t)[..., 2], 1e-3)
        robust = trust / (1 + (_errors(points, seen, R, t) / tolerance) ** 2)
        points = _least_squares(seen, robust / depth**2, R, t)
    best[found] = points
    errors = np.full((n_views, len(best)), np.nan)
    errors[:, found] = _errors(points, seen, R, t)
    return best.reshape(*shape, 3), errors.reshape(n_views, *shape)


def _least_squares(seen: np.ndarray, weights: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Points (n, 3) minimising Σ w·|xy − uv·z|² over the cameras. seen: (C, n, 2), weights: (C, n)."""
    rows = R[:, None, :2] - seen[..., None] * R[:, None, 2:]  # (C, n, 2, 3)
    right = seen * t[:, None, 2:] - t[:, None, :2]  # (C, n, 2)
    normal = np.einsum("cn,cnki,cnkj->nij", weights, rows, rows)
    return np.linalg.solve(normal, np.einsum("cn,cnki,cnk->ni", weights, rows, right)[..., None])[..., 0]


def _in_cameras(points: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    moved: np.ndarray = np.einsum("cij,nj->cni", R, points) + t[:, None]
    return moved


def _errors(points: np.ndarray, seen: np.ndarray, R: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Reprojection errors (C, n) on the plane z = 1."""
    local = _in_cameras(points, R, t)
    off = local[..., :2] / np.maximum(local[..., 2:], 1e-3) - seen
    errors: np.ndarray = np.linalg.norm(off, axis=-1)
    return errors


def centre_cameras(
    pixels: Float[np.ndarray, "c *batch 2"],
    weights: Shaped[np.ndarray, " c *batch"],
    cameras: Sequence[Camera],
    *,
    iterations: int = 5,
) -> list[Camera]:
    """Correct the principal points of a calibration with points that the cameras see.

    Takes each camera's median reprojection error (a video cropped or a camera nudged after calibration shifts
    its whole image) into its principal point. Few steps: in the long run the shifts trade with moving all
    points about, which the images hardly tell apart. Arguments as for :func:`triangulate`.
    """
    corrected = list(cameras)
    for _ in range(iterations):
        points = triangulate(pixels, weights, corrected, iterations=3)[0]
        for i, camera in enumerate(corrected):
            error = (pixels[i] - project(points, camera))[weights[i] > 0]
            K = camera.K.copy()
            K[:2, 2] += np.median(error, axis=0)
            corrected[i] = replace(camera, K=K)
    return corrected


def associate(
    pixels: Float[np.ndarray, "k t j 2"],
    weights: Shaped[np.ndarray, "k t j"],
    views: Sequence[int],
    cameras: Sequence[Camera],
    *,
    tolerance: float = 0.02,
) -> list[list[int]]:
    """Which tracks of several cameras are of the same person.

    Tracks that agree best are joined first, and so on with the groups that result, as long as each track of a
    group lies within ``tolerance`` (median, on the plane z = 1) of what all of them together triangulate to.
    Two views alone can't tell people apart whom they see at the same heights; with three they can.

    Args:
        pixels: points of k tracks over all frames of the videos.
        weights: >= 0, 0 where a track does not see a point.
        views: index of the camera of each track.

    Returns:
        groups of track indices that hold each track exactly once, in the order of their first tracks. A
        group has one track per camera at a time.
    """
    groups = []
    for i, view in enumerate(views):
        own_pixels = np.zeros((len(cameras), *pixels.shape[1:]))
        own_weights = np.zeros(own_pixels.shape[:-1])
        own_pixels[view], own_weights[view] = np.where(weights[i, ..., None] > 0, pixels[i], 0), weights[i]
        groups.append(([i], own_pixels, own_weights))
    while True:
        pairs = itertools.combinations(range(len(groups)), 2)
        cost, a, b = min(
            ((_disagreement(groups[a][1:], groups[b][1:], cameras), a, b) for a, b in pairs),
            default=(np.inf, 0, 0),
        )
        if cost > tolerance:
            return [members for members, _, _ in groups]
        members, more_pixels, more_weights = groups.pop(b)
        groups[a] = (sorted(groups[a][0] + members), groups[a][1] + more_pixels, groups[a][2] + more_weights)


def _disagreement(
    one: tuple[np.ndarray, np.ndarray], other: tuple[np.ndarray, np.ndarray], cameras: Sequence[Camera]
) -> float:
    """Largest of the views' median errors if two groups' pixels (C, T, J, 2) and weights (C, T, J), 0 where
    not seen, are of one person; inf if they can't be or have nothing in common."""
    seen_by_one, seen_by_other = (one[1] > 0).any(-1), (other[1] > 0).any(-1)  # (C, T)
    common = (one[1] > 0).any(0) & (other[1] > 0).any(0)
    if (seen_by_one & seen_by_other).any() or not common.any():
        return float("inf")
    weights = (one[1] + other[1])[:, common]
    errors = triangulate((one[0] + other[0])[:, common], weights, cameras)[1]
    return max(float(np.median(error[seen])) for error, seen in zip(errors, weights > 0) if seen.any())
