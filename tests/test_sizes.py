"""What sizes a model has learned, and how to train and change them."""

import math
from dataclasses import asdict

import pytest
import torch
from torch import nn

from sizeless import (
    DiffStride1d,
    DiffStride2d,
    DiffStrideResidual2d,
    FlexConv1d,
    FlexConv2d,
    NIFFConv2d,
    SeparableFlexConv2d,
    SizeRow,
    SpectralPool2d,
    change_resolution_,
    param_groups,
    project_sizes_,
    refresh_sizes,
    sizes,
)
from sizeless.nn import Size

REACH = math.sqrt(-2 * math.log(0.1))


class Nested(nn.Module):
    """Every kind of learned size, one module at two places, and layers without a size."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 3), SeparableFlexConv2d(4, 4, 9, init_size=3))
        self.pool = DiffStride2d((2.0, 1.5), size_rule="exact", max_stride=4.0)
        self.blocks = nn.ModuleList(
            [DiffStrideResidual2d(4, 6, self.pool), nn.ModuleDict({"niff": NIFFConv2d(6, 2)})]
        )
        self.again = self.pool
        self.spectral, self.head = SpectralPool2d(output_size=4), nn.Linear(32, 3)

    def forward(self, input):
        hidden = self.blocks[0](self.pool(self.stem(input)))
        return self.head(self.spectral(self.blocks[1]["niff"](hidden)).flatten(1))


def test_rows_of_a_nested_model():
    rows = sizes(Nested())
    assert all(isinstance(row, SizeRow) and isinstance(row, Size) for row in rows)
    assert [(row.name, row.layer, row.kind) for row in rows] == [
        ("stem.1.depthwise", "FlexConv2d", "kernel size"),
        ("pool", "DiffStride2d", "stride"),
        ("blocks.1.niff", "NIFFConv2d", "filter extent"),
    ]


def test_every_field_of_a_kernel_size():
    (row,) = sizes(FlexConv2d(2, 6, (33, 9), groups=2, init_size=(5, 3)))
    assert row.name == ""
    assert row.size == (5, 3)
    assert row.window == pytest.approx((2.5 / REACH, 1.5 / REACH))
    assert row.center == (0.0, 0.0)
    assert row.limits == ((3, 33), (3, 9))
    assert row.cost == 6 * 1 * 5 * 3
    assert all(type(n) is int for n in row.size)


def test_every_field_of_a_causal_kernel_size():
    layer = FlexConv1d(1, 2, 100, init_size=8, causal=True)
    (row,) = sizes(layer)
    assert (row.size, row.center, row.limits, row.cost) == ((8,), (0.0,), ((2, 100),), 16)
    assert row.window == pytest.approx((7.5 / REACH,))
    with torch.no_grad():
        layer.window.raw_center.fill_(1 - 2 * 5 / 99)
    assert sizes(layer)[0].center == pytest.approx((-5.0,), abs=1e-4)


def test_every_field_of_a_stride():
    (row,) = sizes(DiffStride2d((2.0, 1.5), min_stride=1.25, max_stride=4.0))
    assert asdict(row) == {
        "name": "",
        "layer": "DiffStride2d",
        "kind": "stride",
        "size": (2.0, 1.5),
        "window": None,
        "center": None,
        "limits": ((1.25, 4.0), (1.25, 4.0)),
        "cost": pytest.approx(1 / 3),
    }
    assert sizes(DiffStride1d(shared=True))[0].limits == ((1.0, math.inf),)


def test_every_field_of_a_filter_extent():
    layer = NIFFConv2d(4, 6, groups=2)
    (row,) = sizes(layer)
    assert (row.size, row.window, row.center) == ((), None, None)
    assert row.limits == ((1, math.inf), (1, math.inf))
    layer(torch.zeros(1, 4, 8, 16))
    (row,) = sizes(layer)
    assert row.size == (8, 16)
    # Two real transforms of 2.5 n log2 n over 10 channels in all, and complex products.
    assert row.cost == pytest.approx(1.25 * 10 * 7 + 2 * 12)


def test_a_model_without_learned_sizes_has_no_rows():
    assert sizes(nn.Sequential(nn.Conv2d(1, 1, 3), SpectralPool2d(2.0))) == []


def test_rows_follow_training():
    model = Nested()
    before = sizes(model)
    optimiser = torch.optim.Adam(param_groups(model, lr=0.01, size_lr=0.3))
    for _ in range(3):
        optimiser.zero_grad()
        model(torch.randn(2, 1, 20, 18)).square().sum().backward()
        optimiser.step()
    after = {row.name: row for row in sizes(model)}
    assert list(after) == [row.name for row in before]
    flex, pool = model.stem[1].depthwise, model.pool
    assert after["stem.1.depthwise"].size == flex.size
    assert after["stem.1.depthwise"].window == pytest.approx((4 * flex.window.sigma).tolist())
    assert after["stem.1.depthwise"].window != before[0].window
    assert after["pool"].size == pool.stride != (2.0, 1.5)
    assert after["pool"].cost == pytest.approx(1 / math.prod(pool.stride))
    assert len(after["blocks.1.niff"].size) == 2


def names_of(model, group):
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {names[parameter] for parameter in group["params"]}


def test_param_groups_hold_every_parameter_once():
    model = Nested()
    groups = {g["name"]: g for g in param_groups(model, lr=0.1, size_lr=0.02, weight_decay=1e-4)}
    assert list(groups) == ["weights", "undecayed", "sizes"]
    found = [parameter for group in groups.values() for parameter in group["params"]]
    assert len(found) == len({id(p) for p in found}) == len(list(model.parameters()))
    assert names_of(model, groups["sizes"]) == {
        "stem.1.depthwise.window.log_sigma",
        "stem.1.depthwise.window.raw_center",
        "pool.log2_stride",
    }
    networks = {f"blocks.1.niff.{part}" for part in ("real", "imag")}
    layers = ("linears.0", "linears.1", "output")
    assert names_of(model, groups["weights"]) == {
        *(f"{network}.{layer}.weight" for network in networks for layer in layers),
        "stem.0.weight",
        "stem.1.pointwise.weight",
        "blocks.0.conv1.weight",
        "blocks.0.conv2.weight",
        "blocks.0.shortcut.weight",
        "head.weight",
    }
    undecayed = names_of(model, groups["undecayed"])
    assert {"stem.0.bias", "blocks.0.norm1.weight", "stem.1.depthwise.bias"} <= undecayed
    assert any(name.startswith("stem.1.depthwise.kernel.") for name in undecayed)
    assert "blocks.1.niff.real.output.bias" in undecayed
    rates = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert rates == {"weights": (0.1, 1e-4), "undecayed": (0.1, 0.0), "sizes": (0.02, 0.0)}


def test_sizes_learn_at_a_tenth_of_the_rate_by_default():
    rates = {group["name"]: group["lr"] for group in param_groups(Nested(), lr=0.3)}
    assert rates["sizes"] == pytest.approx(0.03)
    assert rates["weights"] == rates["undecayed"] == 0.3


def test_frozen_parameters_and_empty_groups_are_left_out():
    model = Nested()
    model.pool.requires_grad_(False)
    model.stem.requires_grad_(False)
    groups = param_groups(model, lr=0.1)
    assert [group["name"] for group in groups] == ["weights", "undecayed"]
    assert all(p.requires_grad for group in groups for p in group["params"])
    assert [g["name"] for g in param_groups(nn.Linear(2, 2, bias=False), lr=0.1)] == ["weights"]


@pytest.mark.parametrize("optimiser_class", [torch.optim.SGD, torch.optim.AdamW])
def test_groups_work_with_optimisers_and_schedules(optimiser_class):
    model = Nested()
    groups = param_groups(model, lr=0.1, size_lr=0.02, weight_decay=0.5)
    optimiser = optimiser_class(groups)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=4)
    before = model.pool.log2_stride.clone()
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    scale = model.head.weight.norm().item()
    optimiser.step()
    schedule.step()
    assert torch.equal(model.pool.log2_stride, before)
    assert model.head.weight.norm().item() == pytest.approx((1 - 0.1 * 0.5) * scale)
    shares = [group["lr"] / group["initial_lr"] for group in optimiser.param_groups]
    assert shares == pytest.approx([shares[0]] * 3)
    assert shares[0] < 1
    torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=[0.1, 0.1, 0.02], total_steps=3)


@pytest.mark.parametrize("name", ["lr", "size_lr", "weight_decay"])
@pytest.mark.parametrize("value", [-0.1, math.nan])
def test_errors_of_rates(name, value):
    with pytest.raises(
        ValueError, match=f"^{name} must be a finite number of at least 0, got {value}"
    ):
        param_groups(nn.Linear(1, 1), **{"lr": 0.1, name: value})


@pytest.mark.parametrize("model", [nn.ReLU(), nn.Linear(1, 1).requires_grad_(False)])
def test_a_model_with_nothing_to_train_is_an_error(model):
    with pytest.raises(ValueError, match="nothing to train"):
        param_groups(model, lr=0.1)


def test_project_sizes():
    model = Nested()
    flex, pool = model.stem[1].depthwise, model.pool
    with torch.no_grad():
        for parameter in param_groups(model, lr=0.1)[-1]["params"]:
            parameter.fill_(50.0)
    used = flex.window.sigma.clone(), flex.window.center.clone(), pool.stride
    assert used[2] == (4.0, 4.0)
    project_sizes_(model)
    assert pool.log2_stride.tolist() == [2.0, 2.0]
    assert flex.window.raw_center.tolist() == [1.0, 1.0]
    assert torch.allclose(flex.window.log_sigma.exp(), used[0])
    assert torch.equal(flex.window.center, used[1])
    assert pool.stride == used[2]


def test_refresh_sizes(monkeypatch):
    """A compiled forward uses the sizes as last read."""
    model = Nested()
    flex, pool = model.stem[1].depthwise, model.pool
    with torch.no_grad():
        pool.log2_stride.fill_(1.5)
        flex.window.log_sigma.fill_(0.0)
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        refresh_sizes(model)
        assert (pool.stride, flex.size) == ((2.0, 1.5), (3, 3))
    refresh_sizes(model)
    with monkeypatch.context() as patch:
        patch.setattr(torch.compiler, "is_compiling", lambda: True)
        assert pool.stride == pytest.approx((2.0**1.5,) * 2)
        assert flex.size == (9, 9)


def test_change_resolution():
    model = nn.Sequential(
        FlexConv2d(1, 2, 9, init_size=5), nn.ReLU(), SeparableFlexConv2d(2, 2, 17)
    )
    change_resolution_(model, 2)
    assert (model[0].kernel_size, model[2].depthwise.kernel_size) == ((17, 17), (33, 33))
    assert all(n > 5 for n in model[0].size)
    change_resolution_(model, 0.5)
    assert (model[0].kernel_size, model[0].size) == ((9, 9), (5, 5))


def test_change_resolution_serves_a_shared_layer_once():
    layer = FlexConv2d(1, 1, 9)
    change_resolution_(nn.Sequential(layer, nn.ReLU(), layer), 2)
    assert layer.kernel_size == (17, 17)


def test_errors_of_change_resolution():
    with pytest.raises(ValueError, match="Sequential has no FlexConv layer"):
        change_resolution_(nn.Sequential(DiffStride1d()), 2)
    with pytest.raises(ValueError, match="factor must be a finite number above 0"):
        change_resolution_(FlexConv1d(1, 1, 9), 0)
    with pytest.raises(ValueError, match="padding='same'"):
        change_resolution_(FlexConv1d(1, 1, 9, padding="valid"), 2)
