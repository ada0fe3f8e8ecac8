"""A loss term of your own, here the lengths of predicted limbs against the true ones, in metres.

python scripts/make_open_db.py
python train.py --plugin examples/own_loss.py --cfg configs/open.yaml --opts LOSS.EXTRA.limb_length 10
"""

from tcmr.core.loss import LOSS_TERMS, Compared
from torch import Tensor

ENDS = [(25, 26), (26, 27), (28, 29), (29, 30), (31, 32), (32, 33), (34, 35), (35, 36)]  # shins, thighs, arms


@LOSS_TERMS.register("limb_length")
def limb_length(part: Compared) -> Tensor | None:
    if part.target_3d is None:
        return None
    error = lengths(part.pred_3d["kp_3d"]) - lengths(part.target_3d["kp_3d"])
    return part.mean_square(error.nan_to_num(), "w_3d")  # NaN: unseen


def lengths(joints: Tensor) -> Tensor:
    """(N, M, 49, 3) -> (N, M, 8)."""
    start, end = zip(*ENDS)
    return (joints[..., start, :] - joints[..., end, :]).norm(dim=-1)
