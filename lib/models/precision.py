"""Reduced precision: its names, and which device computes in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, get_args

import torch

from ..utils.errors import UserError

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


def dtype_of(precision: Precision, own: torch.dtype) -> torch.dtype:
    """What a network whose weights are ``own`` computes in."""
    return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, own)


def check_precision(
    precision: str, device: torch.device, allowed: tuple[str, ...] = get_args(Precision)
) -> None:
    """Whether products on a device can be computed in a precision.

    Raises:
        UserError: they cannot, or it is not among those allowed.
    """
    if precision not in allowed:
        raise UserError(f"precision {precision!r}: use one of {', '.join(allowed)}")
    if precision in ("tf32", "fp16") and device.type != "cuda":
        raise UserError(f"precision {precision} needs a CUDA device, this is {device.type}: use fp32 or bf16")
    if precision == "bf16" and device.type == "cpu" and not cpu_has_bf16():
        raise UserError("precision bf16: this CPU has no instructions for it (AVX512-BF16, AMX): use fp32")


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bfloat16 numbers faster than float32."""
    tests = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    return any(test() for test in tests if test is not None)


@contextmanager
def tf32(on: bool) -> Iterator[None]:
    """:func:`use_tf32` inside a block."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    use_tf32(on)
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def use_tf32(on: bool) -> None:
    """Let CUDA compute float32 products and GRUs from TensorFloat-32 numbers, or not."""
    torch.backends.cuda.matmul.allow_tf32 = on
    torch.backends.cudnn.allow_tf32 = on
