"""Loading weights into a module with errors that a user can act on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..utils.errors import UserError, shown

_LISTED = 3  # names of a kind in an error


def load_weights(
    module: nn.Module,
    weights: Mapping[str, Tensor],
    source: str | Path,
    own_prefix: str | tuple[str, ...] = (),
    allow_more: bool = False,
) -> None:
    """Load ``weights`` into ``module``.

    Args:
        source: where the weights come from, named in errors.
        own_prefix: entries with this prefix stay the module's own, whether ``weights`` has them or not.
        allow_more: ignore entries that the module lacks.

    Raises:
        UserError: names the first missing, unexpected, differently shaped or odd entries; then nothing is
            loaded.
    """
    own = {name: value for name, value in module.state_dict().items() if not name.startswith(own_prefix)}
    given = {
        name: value
        for name, value in weights.items()
        if not str(name).startswith(own_prefix) and (name in own or not allow_more)
    }
    if strange := [str(name) for name, value in given.items() if not isinstance(value, Tensor)]:
        raise UserError(f"{source} holds no weights of a network: {_first(strange)} is no tensor")
    problems = []
    if missing := [name for name in own if name not in given and not name.endswith("num_batches_tracked")]:
        problems.append(f"missing {_first(missing)}")
    if unexpected := [name for name in given if name not in own]:
        problems.append(f"unexpected {_first(unexpected)}")
    shared = [name for name in own if name in given]
    if differing := [
        f"{name} has shape {tuple(given[name].shape)}, expected {tuple(own[name].shape)}"
        for name in shared
        if given[name].shape != own[name].shape
    ]:
        problems.append(_first(differing, "; "))
    if odd := [
        f"{name} holds {given[name].dtype} numbers, expected {own[name].dtype}"
        for name in shared
        if given[name].is_floating_point() != own[name].is_floating_point()
    ]:
        problems.append(_first(odd, "; "))
    if problems:
        raise UserError(
            f"{source} does not fit {type(module).__name__} as configured; check the MODEL settings:"
            f" {'; '.join(problems)}"
        )
    module.load_state_dict(given, strict=False)


def _first(entries: list[str], separator: str = ", ") -> str:
    """The first entries, and how many more there are."""
    listed = separator.join(shown(entry) if separator == ", " else entry for entry in entries[:_LISTED])
    more = len(entries) - _LISTED
    return f"{listed} and {more} more" if more > 0 else listed


def matrix_of(weights: Mapping[str, Any], name: str) -> Tensor:
    """A matrix among weights that nobody has looked at yet; an empty one if there is none of that name."""
    value = weights.get(name)
    return value if isinstance(value, Tensor) and value.dim() == 2 else torch.zeros(0, 0)


def per_frame_weights(checkpoint: Mapping[str, Any], source: str | Path) -> Mapping[str, Tensor]:
    """The ``model`` entry of the checkpoint of a per-frame network (SPIN's, or the landmark network's).

    Raises:
        UserError: there is no such entry, or it holds no weights.
    """
    weights = checkpoint.get("model")
    if not isinstance(weights, Mapping):
        found = _first(list(map(str, checkpoint)))
        raise UserError(
            f"{source} has no weights in an entry 'model' (found {found}); expected the checkpoint of SPIN"
            " or of this project's landmark network"
        )
    return weights
