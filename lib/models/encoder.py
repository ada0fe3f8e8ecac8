"""PoseForecast, the temporal encoder of TCMR (Choi et al., CVPR 2021, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_ATTENTION_SIZE = 256
_BRANCHES = 3


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
        frames = x.transpose(0, 1)
        middle = self.mid_frame
        current = self.gru_cur(frames)[0][middle]
        before = self.gru_bef(frames[:middle])[0][-1]
        after = self.gru_aft(frames[middle + 1 :].flip(0))[0][-1]
        return self._integrate(before, current, after, is_train)

    def encode_windows(self, frames: Tensor, windows: Tensor) -> tuple[Tensor, Tensor]:
        """:meth:`forward` of ``frames[windows]``, with the work that overlapping windows share done once.

        The first layer's input products are computed per frame rather than per window, and steps of the last
        layer that do not reach the middle frame are skipped. Results equal up to rounding.

        Args:
            frames: (U, F).
            windows: (N, T) indices of frames.

        Returns:
            the integrated feature (N, F) and the attention scores (N, 3).
        """
        middle, order = self.mid_frame, windows.T
        after_order = order[middle + 1 :].flip(0)
        current = _last_state(self.gru_cur, frames, order, middle)
        before = _last_state(self.gru_bef, frames, order[:middle], middle - 1)
        after = _last_state(self.gru_aft, frames, after_order, len(after_order) - 1)
        return self._integrate(before, current, after, is_train=False)

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


def _last_state(gru: nn.GRU, frames: Tensor, order: Tensor, step: int) -> Tensor:
    """Output (N, H or 2 H) of ``gru(frames[order])`` at ``step``; ``frames`` (U, F), ``order`` (T, N)."""
    directions = ("", "_reverse") if gru.bidirectional else ("",)
    states = None
    for layer in range(gru.num_layers):
        outputs = []
        for direction in directions:
            weight, bias = (getattr(gru, f"{name}_ih_l{layer}{direction}") for name in ("weight", "bias"))
            steps = slice(None)
            if layer == gru.num_layers - 1:
                steps = slice(step, None) if direction else slice(step + 1)
            if states is None:
                per_frame = functional.linear(frames, weight, bias)
                gates = [per_frame[indices] for indices in order[steps]]
            else:
                gates = list(functional.linear(states[steps], weight, bias))
            hidden = _recur(gru, f"_l{layer}{direction}", gates[::-1] if direction else gates)
            outputs.append(torch.stack(hidden[::-1] if direction else hidden))
        if layer == gru.num_layers - 1:
            return torch.cat((outputs[0][-1], *(backward[0] for backward in outputs[1:])), dim=-1)
        states = torch.cat(outputs, dim=-1)
    raise ValueError("a GRU has at least one layer")


def _recur(gru: nn.GRU, suffix: str, gates: list[Tensor]) -> list[Tensor]:
    """States (N, H) after each step, from input products (N, 3 H) in PyTorch's order reset, update, new."""
    weight, bias = getattr(gru, f"weight_hh{suffix}"), getattr(gru, f"bias_hh{suffix}")
    split = [2 * gru.hidden_size, gru.hidden_size]
    state = gates[0].new_zeros(len(gates[0]), gru.hidden_size)
    states = []
    for gate in gates:
        from_input, from_state = gate.split(split, 1), functional.linear(state, weight, bias).split(split, 1)
        reset, update = (from_input[0] + from_state[0]).sigmoid().chunk(2, dim=1)
        new = (from_input[1] + reset * from_state[1]).tanh()
        state = new + update * (state - new)
        states.append(state)
    return states
