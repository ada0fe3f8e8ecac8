"""SMPL's numbering of vertices by landmarks, and the regressors of evaluation."""

from __future__ import annotations

import numpy as np

from .skeleton import INDEX, Array, Bodies

# landmark: (id on the left or the midline, id on the right), the ids of smplx.vertex_ids["smplh"]
LANDMARK_IDS: dict[str, tuple[int, int | None]] = {
    "nose": (332, None),
    "eye": (2800, 6260),
    "ear": (583, 4071),
    "big_toe": (3216, 6617),
    "small_toe": (3226, 6624),
    "heel": (3387, 6787),
    "finger1": (2746, 6191),
    "finger2": (2319, 5782),
    "finger3": (2445, 5905),
    "finger4": (2556, 6016),
    "finger5": (2673, 6133),
}


def find_landmarks(bodies: Bodies, mean: Array, joints: Array) -> dict[int, int]:
    """Map smplx's landmark vertex ids to the vertices of the mean body that lie there."""
    weights = bodies.weights

    def extreme(mask: Array, score: Array) -> int:
        inside = np.flatnonzero(mask)
        return int(inside[score[inside].argmax()])

    x, y, z = mean.T
    head = weights[:, INDEX["head"]] > 0.5
    head_y = joints[INDEX["head"], 1]
    nose = extreme(head & (np.abs(x) < 0.004) & (y > head_y - 0.06) & (y < head_y + 0.12), z)
    up = y - y[nose]
    toes = weights[:, INDEX["foot.L"]] > 0.3
    low = y < joints[INDEX["ankle.L"], 1] - 0.03
    left = {
        "nose": nose,
        "eye": extreme(head & (np.abs(x - 0.033) < 0.012) & (np.abs(up - 0.038) < 0.012), z),
        "ear": extreme(head & (up > -0.03) & (up < 0.05), x),
        "big_toe": extreme(toes & (x < np.median(x[toes])), z),
        "small_toe": extreme(bodies.tips[5], z),
        "heel": extreme((weights[:, INDEX["ankle.L"]] > 0.5) & low, -z),
    }
    reach = np.linalg.norm(mean - joints[INDEX["wrist.L"]], axis=1)
    for k in range(1, 6):
        left[f"finger{k}"] = extreme(bodies.tips[k - 1], reach)
    placed = {}
    for name, (left_id, right_id) in LANDMARK_IDS.items():
        placed[left_id] = left[name]
        if right_id is not None:
            placed[right_id] = int(bodies.mirror[left[name]])
    if len(set(placed.values())) != len(placed):
        raise RuntimeError("two landmarks fell on one vertex")
    return placed


def smpl_order(placed: dict[int, int], n: int) -> Array:
    """Order (n,), new to old vertex number, with the landmarks on their ids and the rest as it was."""
    order = np.full(n, -1)
    order[list(placed)] = list(placed.values())
    order[order < 0] = np.setdiff1d(np.arange(n), list(placed.values()))
    return order


def evaluation_regressors(mean: Array, regressor: Array, weights: Array) -> tuple[Array, Array]:
    """Human3.6M (17, V) and LSP/MPII (9, V) regressors: our own definitions from joints and surface points.

    Row orders: h36m is hip, lhip, lknee, lankle, rhip, rknee, rankle, spine, neck, head, headtop, lshoulder,
    lelbow, lwrist, rshoulder, relbow, rwrist; extra is RHip, LHip, Neck (LSP), HeadTop, Pelvis, Thorax,
    Spine, Jaw, Head (H36M).
    """
    joint = {name: regressor[i] for name, i in INDEX.items()}
    head = weights[:, INDEX["head"]]
    unit = np.eye(len(mean))
    nose_id = LANDMARK_IDS["nose"][0]
    nose, top = unit[nose_id], unit[np.where(head > 0.5, mean[:, 1], -9).argmax()]
    below_nose = np.array([0, mean[nose_id, 1] - 0.06, mean[nose_id, 2] - 0.01])
    jaw = unit[np.where(head > 0.3, np.linalg.norm(mean - below_nose, axis=1), 9).argmin()]

    def middle(*rows: Array) -> Array:
        return np.mean(rows, 0)

    spine = middle(joint["spine1"], joint["spine2"])
    legs, arms = (
        [joint[f"{part}.{side}"] for side in "LR" for part in limb]
        for limb in (("hip", "knee", "ankle"), ("shoulder", "elbow", "wrist"))
    )
    neck_base = middle(joint["neck"], joint["neck"], joint["spine3"])
    h36m = [joint["pelvis"], *legs, spine, neck_base, middle(nose, jaw), top, *arms]
    thorax = middle(joint["neck"], joint["spine3"])
    hips = middle(joint["hip.L"], joint["hip.R"])
    extra = [joint["hip.R"], joint["hip.L"], joint["neck"], top, hips, thorax, spine, jaw, middle(top, nose)]
    return np.stack(h36m), np.stack(extra)
