"""PoseForecast, the temporal encoder of TCMR (Choi et al., CVPR 2021, section 3), and parts of it alone."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from .precision import Precision, dtype_of, tf32
from .recurrence import (
    AnyProduct,
    FirstGates,
    Layers,
    PreparedProduct,
    Product,
    layers_of,
    output_at,
    prepare,
)
from .temporal import ENCODERS, States, TemporalEncoder, gru_sizes

_ATTENTION_SIZE = 256
_BRANCHES = ("bef", "cur", "aft")  # past, current, future


class _BranchAttention(nn.Module):
    """Softmax weights of the branches' features."""

    def __init__(self, feature_size: int, branches: int) -> None:
        super().__init__()
        self.fc = nn.Linear(feature_size, _ATTENTION_SIZE)
        # The last Tanh bounds every weight to [0.063, 0.787]; released checkpoints were trained with it.
        self.attention = nn.Sequential(
            nn.Linear(branches * _ATTENTION_SIZE, _ATTENTION_SIZE),
            nn.Tanh(),
            nn.Linear(_ATTENTION_SIZE, _ATTENTION_SIZE),
            nn.Tanh(),
            nn.Linear(_ATTENTION_SIZE, branches),
            nn.Tanh(),
        )

    def forward(self, features: Float[Tensor, "n b f"]) -> Float[Tensor, "n b"]:
        return self.weigh(self.fc(features))

    def weigh(self, hidden: Float[Tensor, "n b 256"]) -> Float[Tensor, "n b"]:
        """What follows the first layer."""
        scores: Tensor = self.attention(hidden.flatten(1))
        return scores.softmax(dim=-1)


@ENCODERS.register("tcmr")
class PoseForecast(TemporalEncoder):
    """One feature of a window's middle frame from its past, its future and the whole window.

    The middle frame is ``seq_len // 2``, counted from 0. Neither the past nor the future branch sees it.

    Args:
        n_layers: GRU layers.
        seq_len: window length; fixes the middle frame.
        hidden_size: GRU hidden size.
        feature_size: numbers per frame in and out.

    Attributes:
        branches: those of past, current and future that there are.
        outputs: features of past and future, where they are there, and integrated.
    """

    branches: tuple[str, ...] = _BRANCHES
    outputs = 3
    gru_bef: nn.GRU
    gru_cur: nn.GRU
    gru_aft: nn.GRU
    linear_bef: nn.Linear
    linear_cur: nn.Linear
    linear_aft: nn.Linear

    def __init__(
        self, n_layers: int = 1, seq_len: int = 16, hidden_size: int = 2048, feature_size: int = 2048
    ) -> None:
        super().__init__(n_layers, seq_len, hidden_size, feature_size)
        self.mid_frame = seq_len // 2
        names = sorted(self.branches, key="cur".__ne__)  # the order in which the original draws weights
        for name in names:
            both = name == "cur"
            self.add_module(f"gru_{name}", nn.GRU(feature_size, hidden_size, n_layers, bidirectional=both))
        for name in names:
            size = 2 * hidden_size if name == "cur" else hidden_size
            self.add_module(f"linear_{name}", nn.Linear(size, feature_size))
        if len(names) > 1:
            self.attention = _BranchAttention(feature_size, len(names))

    def forward(
        self, x: Float[Tensor, "n t f"], is_train: bool = False
    ) -> tuple[Float[Tensor, "n *m f"], Float[Tensor, "n 3"] | None]:
        """Encode windows.

        Returns:
            the integrated feature, or with ``is_train`` the features (n, 3, f) of past, future and
            integrated; and the attention scores of past, current, future.
        """
        frames = x.transpose(0, 1)
        if x.is_cuda:
            return self._integrate(self.states_by_gru(frames), is_train)

        def gates_of(part: Tensor) -> FirstGates:
            return lambda product, steps: product(part[steps])

        frames = frames.contiguous()
        parts = [gates_of(self._part(name, frames)) for name in self.branches]
        return self._integrate(self._states(self.layers(), parts, len(frames)), is_train)

    def encode_windows(
        self, frames: Float[Tensor, "u f"], windows: Int[Tensor, "n t"], is_train: bool = False
    ) -> tuple[Float[Tensor, "n *m f"], Float[Tensor, "n 3"] | None]:
        """:meth:`forward` of ``frames[windows]``, with the work that overlapping windows share done once.

        Results equal up to rounding.
        """
        return self._integrate(self.window_states(frames, windows, self.layers()), is_train)

    def states_by_gru(self, frames: Float[Tensor, "t n f"]) -> list[Float[Tensor, "n _"]]:
        """:meth:`window_states` of whole windows by ``torch.nn.GRU``.

        On CUDA, cuDNN does all steps of a layer in one call. It stays out of autocast, where it would compute
        in float16 whatever type was asked for, which loses small gradients.
        """
        with torch.autocast(frames.device.type, enabled=False):
            frames = frames.to(next(self.parameters()).dtype)
            return [
                getattr(self, f"gru_{name}")(self._part(name, frames))[0][self._end(name, len(frames))]
                for name in self.branches
            ]

    def window_states(
        self, frames: Float[Tensor, "u f"], windows: Int[Tensor, "n t"], layers: list[Layers]
    ) -> list[Float[Tensor, "n _"]]:
        """GRU outputs for ``frames[windows]``: past (n, h), current (n, 2 h), future (n, h).

        The first layer's input products are computed per frame rather than per window.
        """
        order = windows.T

        def gates_of(part: Tensor) -> FirstGates:
            def gates(product: AnyProduct, steps: slice) -> list[Tensor]:
                per_frame = product(frames)
                return [_rows(per_frame, indices) for indices in part[steps]]

            return gates

        parts = [gates_of(self._part(name, order)) for name in self.branches]
        return self._states(layers, parts, len(order))

    def layers(self) -> list[Layers]:
        """The weights of each branch's GRU."""
        return [layers_of(getattr(self, f"gru_{name}")) for name in self.branches]

    def prepare(
        self, matrix: Float[Tensor, "s f"], offset: Float[Tensor, " s"], precision: Precision, rows: int
    ) -> States:
        """See :meth:`TemporalEncoder.prepare`.

        * GRU weights lie in the order in which the CPU multiplies, and in the precision asked for. GRU
          states, gates and all that follows the GRUs stay in the model's own.
        * After the GRUs only the attention's softmax is not linear. So the branches' linear layers are
          multiplied with the attention's first layer on one hand and with what follows the encoder, the whole
          iterative regressor, on the other: 1.7 million multiply-adds per frame instead of 20.6 (at the
          published size).
        """
        dtype, split = dtype_of(precision, offset.dtype), [0, len(offset)]
        layers = [prepare(branch, dtype, rows) for branch in self.layers()]
        offsets = torch.zeros_like(offset)
        if len(self.branches) > 1:
            split[0] = _ATTENTION_SIZE
            matrix = torch.cat((self.attention.fc.weight, matrix))
            offsets = torch.cat((self.attention.fc.bias, offsets))
        products = []
        for linear in self._linears():
            composed = Product(matrix @ linear.weight, matrix @ linear.bias + offsets)
            products.append(PreparedProduct(composed, composed.weight.dtype, rows))

        def states(frames: Tensor, windows: Tensor) -> tuple[Tensor, Tensor | None]:
            with tf32(precision == "tf32"):
                branches = self.window_states(frames, windows, layers)
            parts = torch.stack([product(state.relu()) for product, state in zip(products, branches)], dim=1)
            hidden, followed = torch.split(parts, split, dim=2)
            if len(self.branches) == 1:
                return followed[:, 0] + offset, None
            scores = self.attention.weigh(hidden)
            return torch.einsum("nb,nbs->ns", scores, followed) + offset, self._shares(scores)

        return states

    @classmethod
    def sizes(cls, weights: Mapping[str, Tensor]) -> dict[str, int]:
        return gru_sizes(weights, "gru_cur" if "cur" in cls.branches else "gru_bef")

    def _part(self, name: str, steps: Tensor) -> Tensor:
        """Of the steps (T, …) of a window, those that a branch reads, in its order."""
        if name == "cur":
            return steps
        return steps[: self.mid_frame] if name == "bef" else steps[self.mid_frame + 1 :].flip(0)

    def _end(self, name: str, length: int) -> int:
        """The step of a branch that tells about the middle frame."""
        return {"bef": self.mid_frame - 1, "cur": self.mid_frame, "aft": length - self.mid_frame - 2}[name]

    def _linears(self) -> list[nn.Linear]:
        return [getattr(self, f"linear_{name}") for name in self.branches]

    def _states(self, layers: list[Layers], parts: list[FirstGates], length: int) -> list[Tensor]:
        """What each branch says about the middle frame."""
        ends = [self._end(name, length) for name in self.branches]
        return [output_at(*branch) for branch in zip(layers, parts, ends)]

    def _integrate(self, states: list[Tensor], is_train: bool) -> tuple[Tensor, Tensor | None]:
        """Weigh the GRU states by attention."""
        features = [linear(state.relu()) for linear, state in zip(self._linears(), states)]
        if len(features) == 1:
            return (features[0][:, None] if is_train else features[0]), None
        branches = torch.stack(features, dim=1)
        scores = self.attention(branches)
        integrated = (scores[..., None] * branches).sum(dim=1)
        if is_train:
            integrated = torch.stack((features[0], features[-1], integrated), dim=1)
        return integrated, self._shares(scores)

    def _shares(self, scores: Tensor) -> Tensor:
        """Scores of the branches (N, B) as (N, 3), 0 for one that is not there."""
        if len(self.branches) == len(_BRANCHES):
            return scores
        return torch.stack((scores[:, 0], torch.zeros_like(scores[:, 0]), scores[:, 1]), dim=1)


ENCODERS.add("gru", PoseForecast)  # its name in the original's configurations


@ENCODERS.register("current")
class CurrentOnly(PoseForecast):
    """The bidirectional branch over the whole window alone: an ablation of the paper."""

    branches, outputs = ("cur",), 1


@ENCODERS.register("past_future")
class PastFuture(PoseForecast):
    """PoseForecast without the branch that sees the middle frame: another."""

    branches = ("bef", "aft")


def run_windows(
    count: int, seqlen: int, run_length: int, device: torch.device | None = None
) -> Int[Tensor, "n t"]:
    """Rows that windows of ``seqlen`` frames see of ``count`` runs laid end to end.

    A run of R windows, each one frame later than the one before, has ``seqlen + R - 1`` rows.
    """
    steps = torch.arange(seqlen, device=device)
    starts = torch.arange(run_length, device=device)[:, None]
    runs = torch.arange(count, device=device)[:, None, None] * (seqlen + run_length - 1)
    return (runs + starts + steps).flatten(0, 1)


def _rows(values: Tensor, indices: Tensor) -> Tensor:
    """``values[indices]``, without a copy where the indices count up, as they do inside a video."""
    if not values.is_cuda:  # where asking would wait for the device
        first, n = int(indices[0]), len(indices)
        if torch.equal(indices, torch.arange(first, first + n, device=indices.device)):
            return values[first : first + n]
    return values[indices]
