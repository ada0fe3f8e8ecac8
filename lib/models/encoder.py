"""PoseForecast, the temporal encoder of TCMR (Choi et al., CVPR 2021, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .recurrence import AnyProduct, FirstGates, Layers, layers_of, output_at, prepare

_ATTENTION_SIZE = 256
_BRANCHES = 3

EncoderLayers = tuple[Layers, Layers, Layers]  # past, current, future


class _BranchAttention(nn.Module):
    """Softmax weights (N, 3) of the three branch features (N, 3, F)."""

    def __init__(self, feature_size: int) -> None:
        super().__init__()
        self.fc = nn.Linear(feature_size, _ATTENTION_SIZE)
        # The last Tanh bounds every weight to [0.063, 0.787]; released checkpoints were trained with it.
        self.attention = nn.Sequential(
            nn.Linear(_BRANCHES * _ATTENTION_SIZE, _ATTENTION_SIZE),
            nn.Tanh(),
            nn.Linear(_ATTENTION_SIZE, _ATTENTION_SIZE),
            nn.Tanh(),
            nn.Linear(_ATTENTION_SIZE, _BRANCHES),
            nn.Tanh(),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.attention(self.fc(features).flatten(1)).softmax(dim=-1)


class PoseForecast(nn.Module):
    """One feature of a window's middle frame from its past, its future and the whole window.

    The middle frame is ``seq_len // 2``, counted from 0. Neither the past nor the future branch sees it.

    Args:
        n_layers: GRU layers.
        seq_len: window length T; fixes the middle frame.
        hidden_size: GRU hidden size.
        feature_size: F, numbers per frame in and out.
    """

    def __init__(
        self, n_layers: int = 1, seq_len: int = 16, hidden_size: int = 2048, feature_size: int = 2048
    ) -> None:
        super().__init__()
        self.mid_frame = seq_len // 2
        self.gru_cur = nn.GRU(feature_size, hidden_size, n_layers, bidirectional=True)
        self.gru_bef = nn.GRU(feature_size, hidden_size, n_layers)
        self.gru_aft = nn.GRU(feature_size, hidden_size, n_layers)
        self.linear_cur = nn.Linear(2 * hidden_size, feature_size)
        self.linear_bef = nn.Linear(hidden_size, feature_size)
        self.linear_aft = nn.Linear(hidden_size, feature_size)
        self.attention = _BranchAttention(feature_size)

    def forward(self, x: Tensor, is_train: bool = False) -> tuple[Tensor, Tensor]:
        """Encode windows (N, T, F).

        Returns:
            the integrated feature (N, F), or with ``is_train`` the features (N, 3, F) of past, future and
            integrated; and the attention scores (N, 3) of past, current, future.
        """
        frames, middle = x.transpose(0, 1), self.mid_frame
        if x.is_cuda:
            return self._integrate(*self.states_by_gru(frames), is_train)

        def gates_of(part: Tensor) -> FirstGates:
            return lambda product, steps: product(part[steps])

        frames = frames.contiguous()
        parts = gates_of(frames[:middle]), gates_of(frames), gates_of(frames[middle + 1 :].flip(0))
        return self._integrate(*self._states(self.layers(), parts, len(frames)), is_train)

    def encode_windows(
        self, frames: Tensor, windows: Tensor, is_train: bool = False
    ) -> tuple[Tensor, Tensor]:
        """:meth:`forward` of ``frames[windows]``, with the work that overlapping windows share done once.

        Results equal up to rounding.

        Args:
            frames: (U, F).
            windows: (N, T) indices of frames.
            is_train: see :meth:`forward`.

        Returns:
            what :meth:`forward` returns.
        """
        return self._integrate(*self.window_states(frames, windows, self.layers()), is_train)

    def states_by_gru(self, frames: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """:meth:`window_states` of whole windows (T, N, F) by ``torch.nn.GRU``.

        On CUDA, cuDNN does all steps of a layer in one call. It stays out of autocast, where it would compute
        in float16 whatever type was asked for, which loses small gradients.
        """
        middle = self.mid_frame
        with torch.autocast(frames.device.type, enabled=False):
            frames = frames.to(self.linear_cur.weight.dtype)
            current = self.gru_cur(frames)[0][middle]
            before = self.gru_bef(frames[:middle])[0][-1]
            after = self.gru_aft(frames[middle + 1 :].flip(0))[0][-1]
        return before, current, after

    def window_states(
        self, frames: Tensor, windows: Tensor, layers: EncoderLayers
    ) -> tuple[Tensor, Tensor, Tensor]:
        """GRU outputs for ``frames[windows]``: past (N, H), current (N, 2 H), future (N, H).

        The first layer's input products are computed per frame rather than per window.
        """
        middle, order = self.mid_frame, windows.T

        def gates_of(part: Tensor) -> FirstGates:
            def gates(product: AnyProduct, steps: slice) -> list[Tensor]:
                per_frame = product(frames)
                return [_rows(per_frame, indices) for indices in part[steps]]

            return gates

        parts = gates_of(order[:middle]), gates_of(order), gates_of(order[middle + 1 :].flip(0))
        return self._states(layers, parts, len(order))

    def layers(self) -> EncoderLayers:
        """The weights of the past, the current and the future branch."""
        return layers_of(self.gru_bef), layers_of(self.gru_cur), layers_of(self.gru_aft)

    def prepared_layers(self, dtype: torch.dtype, rows: int) -> EncoderLayers:
        """Copies of :meth:`layers` in a precision, for many calls with about ``rows`` windows."""
        past, current, future = self.layers()
        return prepare(past, dtype, rows), prepare(current, dtype, rows), prepare(future, dtype, rows)

    def _states(
        self, layers: EncoderLayers, parts: tuple[FirstGates, FirstGates, FirstGates], length: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the branches say about the middle frame: (N, H), (N, 2 H), (N, H)."""
        ends = self.mid_frame - 1, self.mid_frame, length - self.mid_frame - 2
        past, current, future = (output_at(*branch) for branch in zip(layers, parts, ends))
        return past, current, future

    def _integrate(
        self, before: Tensor, current: Tensor, after: Tensor, is_train: bool
    ) -> tuple[Tensor, Tensor]:
        """Weigh the three GRU states by attention."""
        f_bef = self.linear_bef(before.relu())
        f_cur = self.linear_cur(current.relu())
        f_aft = self.linear_aft(after.relu())
        branches = torch.stack((f_bef, f_cur, f_aft), dim=1)
        scores = self.attention(branches)
        integrated = (scores[..., None] * branches).sum(dim=1)
        if is_train:
            return torch.stack((f_bef, f_aft, integrated), dim=1), scores
        return integrated, scores


def run_windows(count: int, seqlen: int, run_length: int, device: torch.device | None = None) -> Tensor:
    """Rows (count * R, L) that windows of L frames see of ``count`` runs laid end to end.

    A run of R windows, each one frame later than the one before, has L + R - 1 rows.
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
