"""GRU layers as explicit products over a batch of sequences.

They compute what ``torch.nn.GRU`` does, but run only the steps that are asked for, take input products from
outside (windows that overlap share them), work in reduced precision without casting weights at every step,
and get a layer's weight gradients from one product instead of one per step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class Product(NamedTuple):
    """``x @ weight.T + bias``, differentiable. ``weight`` (out, in), ``bias`` (out,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


class PreparedProduct:
    """A copy of a :class:`Product` for many calls without gradient.

    On a CPU the weights are brought once into the order in which oneDNN multiplies.

    Args:
        product: what is copied.
        dtype: what is computed in and returned.
        rows: of x, about; decides that order. 0 leaves the order, and without a change of ``dtype`` the
            memory, as it is.
    """

    def __init__(self, product: Product, dtype: torch.dtype, rows: int) -> None:
        self.dtype, self.bias = dtype, product.bias.detach().to(dtype)
        self._weight = product.weight.detach().to(dtype)
        on_cpu = self._weight.device.type == "cpu" and dtype != torch.float64
        self._packed = rows > 0 and on_cpu and torch.backends.mkldnn.is_available()
        if self._packed:
            self._weight = torch.ops.mkldnn._reorder_linear_weight(self._weight, rows)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.to(self.dtype)
        if self._packed:
            result: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self.bias, "none", [], "")
            return result
        return functional.linear(x, self._weight, self.bias)


AnyProduct = Product | PreparedProduct
Steps = Sequence[Tensor] | Tensor  # T times (N, 3 H)
FirstGates = Callable[[AnyProduct, slice], Steps]  # see output_at


class Direction(NamedTuple):
    """One direction of a layer: what a frame (*, F) and the state (*, H) add to the gates (*, 3 H)."""

    from_input: AnyProduct
    from_state: AnyProduct


Layers = list[list[Direction]]  # of every layer: forward and, if there is one, backward


def layers_of(gru: nn.GRU) -> Layers:
    """The products of a GRU, differentiable with respect to its weights."""

    def product(part: str, suffix: str) -> Product:
        return Product(getattr(gru, f"weight_{part}_{suffix}"), getattr(gru, f"bias_{part}_{suffix}"))

    directions = ("", "_reverse") if gru.bidirectional else ("",)
    suffixes = [[f"l{layer}{direction}" for direction in directions] for layer in range(gru.num_layers)]
    return [
        [Direction(product("ih", suffix), product("hh", suffix)) for suffix in layer] for layer in suffixes
    ]


def prepare(layers: Layers, dtype: torch.dtype, rows: int) -> Layers:
    """Copies for many calls without gradient, see :class:`PreparedProduct`.

    What meets a frame once only, the first layer's input weights, is not worth the memory of another order.
    """

    def copy(product: AnyProduct, count: int = rows) -> AnyProduct:
        return PreparedProduct(product, dtype, count) if isinstance(product, Product) else product

    first, *others = layers
    return [
        [Direction(copy(ih, 0), copy(hh)) for ih, hh in first],
        *([Direction(copy(ih), copy(hh)) for ih, hh in layer] for layer in others),
    ]


def output_at(layers: Layers, first_gates: FirstGates, step: int) -> Tensor:
    """Output (N, H or 2 H) of a GRU at one step, without steps of its last layer that do not reach it.

    Args:
        layers: the GRU's.
        first_gates: maps the first layer's input product and a slice of the steps to that product of each
            of these steps' inputs, (N, 3 H).
        step: from 0.
    """
    states: Tensor | None = None
    for layer in layers[:-1]:
        states = torch.cat(_layer(layer, first_gates, states, [slice(None)] * len(layer)), dim=-1)
    ends = _layer(layers[-1], first_gates, states, [slice(step + 1), slice(step, None)])
    return torch.cat([hidden[place] for hidden, place in zip(ends, (-1, 0))], dim=-1)


def _layer(
    layer: list[Direction],
    first_gates: FirstGates,
    states: Tensor | None,
    steps: list[slice],
) -> list[Tensor]:
    """States (T, N, H) of every direction at its steps, from the states of the layer below."""
    outputs = []
    for backward, (direction, part) in enumerate(zip(layer, steps)):
        product = direction.from_input
        gates = first_gates(product, part) if states is None else product(states[part])
        outputs.append(_run(gates, direction.from_state, bool(backward)))
    return outputs


@torch.compiler.disable  # type: ignore[untyped-decorator]  # packed weights are unknown to the compiler
def _run(gates: Steps, product: AnyProduct, backward: bool) -> Tensor:
    """States (T, N, H), in order of time, from the input products (N, 3 H) of T steps."""
    if isinstance(product, Product) and torch.is_grad_enabled():
        stacked = gates if isinstance(gates, Tensor) else torch.stack(list(gates))
        states: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call] # torch has no types for it
            stacked, product.weight, product.bias, backward
        )
        return states
    return _forward(gates, product, product.bias, backward, None)


@torch.no_grad()
def _forward(gates: Steps, product: AnyProduct, bias: Tensor, backward: bool, kept: Tensor | None) -> Tensor:
    """:func:`_run` without gradient. ``kept`` (T, N, 4 H) takes reset, update, new and new's share of the
    state, which the gradient needs."""
    n, hidden = gates[0].shape[0], gates[0].shape[1] // 3
    accurate = torch.promote_types(gates[0].dtype, torch.float32)
    states = gates[0].new_empty(len(gates), n, hidden, dtype=accurate)
    state, bias = None, bias.to(accurate)
    for step in reversed(range(len(gates))) if backward else range(len(gates)):
        gate = gates[step].to(accurate)
        # The state before the first step is 0: nothing to multiply.
        from_state = bias if state is None else product(state).to(accurate)
        reset_update = (gate[:, : 2 * hidden] + from_state[..., : 2 * hidden]).sigmoid_()
        reset, update = reset_update.chunk(2, dim=1)
        new = torch.addcmul(gate[:, 2 * hidden :], reset, from_state[..., 2 * hidden :])
        (Tensor.tanh_ if new.is_cuda else _tanh_by_sigmoid_)(new)
        if state is None:
            torch.addcmul(new, update, new, value=-1, out=states[step])
        else:
            torch.lerp(new, state, update, out=states[step])
        state = states[step]
        if kept is not None:
            kept[step, :, : 2 * hidden] = reset_update
            kept[step, :, 2 * hidden : 3 * hidden] = new
            kept[step, :, 3 * hidden :] = from_state[..., 2 * hidden :]
    return states


def _tanh_by_sigmoid_(x: Tensor) -> Tensor:
    """In place. On a CPU torch's tanh takes five times as long as its sigmoid; both are right to 1e-7."""
    return x.mul_(2).sigmoid_().mul_(2).sub_(1)


class _Recurrence(torch.autograd.Function):
    """:func:`_run` with its gradient. Products are in the precision of autocast where that is on."""

    @staticmethod
    def forward(ctx: Any, gates: Tensor, weight: Tensor, bias: Tensor, backward: bool) -> Tensor:
        device = gates.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        weight = weight.to(dtype)
        steps, n, width = gates.shape
        kept = gates.new_empty(steps, n, width // 3 * 4, dtype=torch.promote_types(dtype, torch.float32))
        product = PreparedProduct(Product(weight, bias), dtype, n)
        states = _forward(gates, product, bias, backward, kept)
        ctx.save_for_backward(weight, states, kept)
        ctx.backward, ctx.dtypes = backward, (gates.dtype, bias.dtype)
        return states

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_states: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        weight, states, kept = ctx.saved_tensors
        steps, n, hidden = states.shape
        grad_gates = states.new_empty(steps, n, 3 * hidden)
        grad_from_state = torch.empty_like(grad_gates)
        order = range(steps) if ctx.backward else reversed(range(steps))
        before = 1 if ctx.backward else -1  # where the previous state lies
        grad_state: Tensor | None = None
        for step in order:
            grad = grad_states[step] if grad_state is None else grad_states[step] + grad_state
            reset, update, new, share = kept[step].chunk(4, dim=1)
            first = not 0 <= step + before < steps
            difference = -new if first else states[step + before] - new
            out, out_state = grad_gates[step], grad_from_state[step]
            grad_new = grad * (1 - update) * (1 - new * new)
            out[:, 2 * hidden :] = grad_new
            out_state[:, 2 * hidden :] = grad_new * reset
            out[:, :hidden] = grad_new * share * (reset * (1 - reset))
            out[:, hidden : 2 * hidden] = grad * difference * (update * (1 - update))
            out_state[:, : 2 * hidden] = out[:, : 2 * hidden]
            if not first:
                product = out_state.to(weight.dtype) @ weight
                grad_state = torch.addcmul(product, grad, update)
        previous = states[1:] if ctx.backward else states[:-1]
        received = grad_from_state[:-1] if ctx.backward else grad_from_state[1:]
        received = received.flatten(0, 1).to(weight.dtype)
        grad_weight = received.T @ previous.flatten(0, 1).to(weight.dtype)
        grad_bias = grad_from_state.sum(dim=(0, 1))
        gates_dtype, bias_dtype = ctx.dtypes
        return grad_gates.to(gates_dtype), grad_weight.to(bias_dtype), grad_bias.to(bias_dtype), None
