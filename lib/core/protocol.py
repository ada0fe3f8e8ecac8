"""What a measurement was: everything that has to be known before two numbers are compared."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from ..dataset.datasets import FrameRate

ROOT_JOINTS = {"common": [2, 3], "mpii3d_test": [14]}  # their mean is the root that joints are compared about
_ROOT_NAMES = {"common": "middle of the hips", "mpii3d_test": "joint hip"}
PUBLISHED_SEQLEN = 16
GroundTruth = Literal["neutral", "gendered"]


@dataclass(frozen=True)
class Protocol:
    """How numbers were made.

    Attributes:
        title: TITLE of the configuration.
        dataset, split: dataset key and split.
        database: its file.
        own_database: the file was named in DATASET.FILES.
        part: only sequences whose name contains this.
        body: kind of the body model.
        ground_truth: which body gives the true vertices, and with ``gendered`` the true joints too.
        joints: convention of the compared joints.
        joint_count: how many they are.
        joints_seen: how many of them have a truth in any frame.
        seqlen: frames of a window.
        borders: what the first and last frames of a sequence see, ``static`` or ``edge``.
        step: frames from one frame of a window to the next.
        precision: of the products in the GRUs.
        smoothed: predicted rotations were filtered over time.
        root_aligned_verts: MPVPE was measured with aligned roots, too.
        frames: which of the database's count, in words.
        frame_rate: for Accel in m/s^2.
    """

    title: str
    dataset: str
    split: str
    database: str
    own_database: bool
    part: str
    body: str
    ground_truth: GroundTruth
    joints: str
    joint_count: int
    joints_seen: int
    seqlen: int
    borders: str
    step: int
    precision: str
    smoothed: bool
    fitted: bool
    root_aligned_verts: bool
    frames: str
    frame_rate: FrameRate

    @property
    def benchmark(self) -> str:
        """Its name; numbers of different benchmarks must not be compared."""
        name = f"{self.dataset} {self.split}"
        return name if self.ground_truth == "neutral" else f"{name}, gendered ground truth"

    def deviations(self) -> list[str]:
        """Why numbers are not made as the published ones are; empty if they are."""
        reasons = {
            "gendered ground truth is a different benchmark": self.ground_truth == "gendered",
            f"the split is {self.split}": self.split != "test",
            f"the database is {self.database}": self.own_database,
            f"only {self._joint_set()} have a truth": self.joints_seen < self.joint_count,
            f"only sequences with {self.part!r} in their name": bool(self.part),
            "rotations were smoothed": self.smoothed,
            "bodies were fitted to landmarks": self.fitted,
            "the ends of sequences are padded with their border frames": self.borders != "static",
            f"windows have {self.seqlen} frames, not {PUBLISHED_SEQLEN}": self.seqlen != PUBLISHED_SEQLEN,
            f"windows take one frame in {self.step}, of smoothed features": self.step != 1,
            f"the GRUs compute in {self.precision}": self.precision != "fp32",
            f"the body model is the {self.body} one": self.body != "smpl",
        }
        return [reason for reason, applies in reasons.items() if applies]

    def card(self, with_mesh: bool) -> list[tuple[str, str]]:
        """The protocol in words: subject and statement."""
        bodies = {"neutral": "neutral", "gendered": "male or female, as the database's `gender` says"}
        joint_truth = "the database's joints3D"
        if self.ground_truth == "gendered":
            joint_truth = "Human3.6M regressor on the gendered mesh (the database's joints3D are not used)"
        rate = self.frame_rate
        frames = "unknown" if rate.fps is None else f"{rate.fps:g} frames/s"
        rows = [
            ("benchmark", self.benchmark),
            ("database", self.database),
            ("body model", {"smpl": "SMPL", "open": "the open body (not SMPL)"}[self.body]),
            (
                "prediction",
                "neutral body"
                + ", fitted to the landmarks" * self.fitted
                + ", smoothed over time (slerp 0.3)" * self.smoothed,
            ),
            ("precision", f"{self.precision} in the GRUs, fp32 elsewhere"),
            ("true joints", joint_truth),
            ("joint set", f"{self._joint_set()}, convention `{self.joints}`"),
            ("root", f"{_ROOT_NAMES[self.joints]}: subtracted from both, every frame, before all metrics"),
            ("PA-MPJPE", "similarity alignment (scale, rotation, translation) of every frame by itself"),
            ("frames", f"{self.frames}; Accel: without the first and last of a sequence"),
            ("Accel", f"second difference about the root, error; m/s² at {frames} ({rate.source})"),
        ]
        if with_mesh:
            rows.append(("true vertices", f"{bodies[self.ground_truth]} body, the database's pose and shape"))
            rows.append(("MPVPE", "vertices without translation, no alignment of roots"))
        if self.root_aligned_verts:
            rows.append(
                ("MPVPE-root", "each mesh about the middle of its own J14 hips: another metric than MPVPE")
            )
        return [
            *rows,
            ("windows", f"{self.seqlen} frames, stride 1, one prediction per frame; {self._ends()}"),
            ("step in a window", f"{self.step} frame{'s, features smoothed' * (self.step > 1)}"),
        ]

    def _joint_set(self) -> str:
        seen = f"{self.joints_seen} of " if self.joints_seen < self.joint_count else ""
        return f"{seen}{self.joint_count} joints"

    def _ends(self) -> str:
        if self.borders == "edge":
            return "border frames repeated, any length"
        before, after = self.seqlen // 2, (self.seqlen - 1) // 2
        return (
            f"the first {before} and last {after} frames see themselves repeated, "
            f"shorter sequences are skipped"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values, with the deviations."""
        return {**asdict(self), "benchmark": self.benchmark, "deviations": self.deviations()}
