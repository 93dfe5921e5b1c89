"""Where torch's own convolution in one memory layout, and its own derivative, serve best."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from sizeless.functional import direct
from sizeless.functional.blocks import cut
from sizeless.functional.costs import direct_cost, is_better_turned, spectral_cost, step_cost
from sizeless.functional.fft import result_dtype
from sizeless.functional.geometry import Geometry
from sizeless.functional.measured import is_tuning
from sizeless.functional.operands import has_channels_last
from sizeless.functional.operators import somebody_looks
from sizeless.functional.plan_table import recorded
from sizeless.functional.plans import Plan, Step, plan_for

_APART = 3e5
"""Nanoseconds of a training step of three products apart, beside their work: calls and look-ups."""


def one_layout(input: Tensor, weight: Tensor, geometry: Geometry, method: str) -> str | None:
    """Return ``"direct"`` or ``"channels_last"`` if torch's own derivative is the best with it.

    One operation and its derivative then take the place of three products with plans of their own,
    at a fraction of the calls; its autograd serves every transformation.
    """
    if method == "direct":
        return method
    plain = input.dtype == weight.dtype == result_dtype(input)
    if not plain or not torch.is_grad_enabled() or is_tuning() or somebody_looks((input, weight)):
        return None
    device = input.device.type
    plan = plan_of_step(geometry, device, method)
    name: str = plan.output.method
    if name == "fft" or any(step.method != name for step in plan):
        return None
    last = name == "channels_last"
    return name if direct.has_best_derivative(geometry, device, channels_last=last) else None


def plan_of_step(geometry: Geometry, device_type: str, method: str) -> Plan:
    """Return our plan, or one layout for all products where a training step is as fast with it."""
    plan = plan_for(geometry, device_type, method)
    is_mixed = len({step.method for step in plan}) > 1
    if not is_mixed or method != "auto" or device_type != "cpu":
        return plan
    if recorded(geometry, device_type) is not None:
        return plan
    name = _one_as_fast(geometry, plan)
    if name is None:
        return plan
    last = name == "channels_last"
    best = direct.has_best_derivative(geometry, device_type, channels_last=last)
    return Plan(*[Step(name)] * 3) if best else plan


@lru_cache(maxsize=4096)
def _one_as_fast(geometry: Geometry, plan: Plan) -> str | None:
    """Return the one layout in which a training step is as fast as with a plan, or None."""
    steps: dict[Step, list[str]] = {}
    for product, step in plan._asdict().items():
        steps.setdefault(step, []).append(product)
    planned = _APART
    for step, products in steps.items():
        if step.method == "fft":
            planned += spectral_cost(geometry, cut(geometry, step.lengths), tuple(products))
        else:
            last = step.method == "channels_last"
            planned += sum(direct_cost(geometry, each, channels_last=last) for each in products)
    costs = {
        name: step_cost(geometry, channels_last=name == "channels_last")
        for name in ("direct", "channels_last")
    }
    name = min(costs, key=costs.__getitem__)
    return name if costs[name] < planned else None


def layout_of_few(geometry: Geometry, device_type: str, like: Tensor | None) -> str:
    """Return the layout for torch's own convolution with a few taps.

    Args:
        geometry: Where the taps fall.
        device_type: Where it runs.
        like: The input; None stands for one in float32 that needs a gradient.
    """
    if device_type != "cpu" or somebody_looks((like,)) or not torch._C._get_mkldnn_enabled():
        return "direct"
    in_training = True
    if like is not None:
        single = result_dtype(like) == like.dtype == torch.float32
        if not single or has_channels_last(like):
            return "direct"
        in_training = torch.is_grad_enabled()
        if in_training and not like.requires_grad:
            return "direct"
    return "channels_last" if is_better_turned(geometry, in_training=in_training) else "direct"
