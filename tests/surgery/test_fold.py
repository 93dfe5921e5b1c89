"""What fold keeps, shares, reports and refuses."""

import copy
import re

import pytest
import torch
from torch import nn

import sizeless
from sizeless import DiffStride2d, FlexConv2d, NIFFConv2d, SpectralPool2d
from sizeless.compat import OfficialDiffStride2d

from .folding import assert_folds, error_of, ours_in

IMAGE = (1, 1, 12, 10)


def network():
    return nn.Sequential(
        FlexConv2d(1, 4, 9, init_size=5),
        NIFFConv2d(4, 6),
        DiffStride2d(1.7),
        nn.BatchNorm2d(6),
        SpectralPool2d(2.0),
    ).eval()


def refused(message, model, *inputs, **options):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        sizeless.fold(model, *(inputs or (torch.randn(IMAGE),)), **options)


def test_the_original_stays_as_it_is():
    model = network().train()
    model[1].eval()
    before, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    kinds = [type(module) for module in model]
    plain, _ = sizeless.fold(model, torch.randn(IMAGE))
    assert [type(module) for module in model] == kinds
    assert [module.training for module in model.modules()] == modes
    after = model.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    mine = {parameter.data_ptr() for parameter in model.parameters()}
    assert not mine & {parameter.data_ptr() for parameter in plain.parameters()}
    assert not any(parameter.grad is not None for parameter in model.parameters())


def test_modes_of_layers_are_kept():
    model = network().train()
    model[2].eval()
    plain, _ = sizeless.fold(model, torch.randn(IMAGE))
    assert [module.training for module in plain] == [True, True, False, True, True]


def test_kernels_train_and_resampling_does_not():
    plain, _ = sizeless.fold(network(), torch.randn(IMAGE))
    trained = [name for name, p in plain.named_parameters() if p.requires_grad]
    assert trained == ["0.weight", "0.bias", "1.1.weight", "3.weight", "3.bias"]


def test_hooks_act_on_what_takes_the_place():
    model, seen = network(), []
    for layer in model:
        layer.register_forward_hook(lambda *_: seen.append("after"))
        layer.register_forward_pre_hook(lambda *_: seen.append("before"))
    plain, _ = sizeless.fold(model, torch.randn(IMAGE))
    seen.clear()
    plain(torch.randn(IMAGE))
    assert seen == ["before", "after"] * len(model)


def test_hooks_of_a_block_act_on_its_graph():
    block, seen = sizeless.SeparableFlexConv2d(1, 2, 5), []
    block.register_forward_hook(lambda *_: seen.append("block"))
    plain, _ = sizeless.fold(nn.Sequential(block), torch.randn(IMAGE))
    seen.clear()
    plain(torch.randn(IMAGE))
    assert seen == ["block"]


def test_a_shared_kernel_stays_shared():
    conv = FlexConv2d(1, 1, 9, init_size=5)
    model = nn.Sequential(conv, nn.ReLU(), conv)
    plain, report = assert_folds(model, torch.randn(IMAGE), 1e-5)
    assert plain[0] is plain[2]
    assert [change.name for change in report.changes] == ["0"]


def test_a_shared_stride_is_told_apart_where_it_is_called():
    pool = DiffStride2d(1.7)
    model = nn.Sequential(pool, nn.Conv2d(1, 3, 3), pool)
    plain, report = assert_folds(model, torch.randn(IMAGE), 1e-5)
    assert plain[0] is not plain[2]
    assert [change.name for change in report.changes] == ["0", "2"]


class Block(nn.Module):
    """Somebody's block that pools two branches with one learned stride."""

    def __init__(self, pool):
        super().__init__()
        self.pool, self.conv = pool, nn.Conv2d(1, 3, 3, padding=1)

    def forward(self, input):
        return self.pool(self.conv(input)) + self.pool(input)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_pool_for_several_numbers_of_channels_is_a_graph(dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 1e-10
    model = Block(DiffStride2d((1.7, 2.3))).to(dtype)
    plain, _ = assert_folds(model, torch.randn(IMAGE, dtype=dtype), tolerance)
    assert isinstance(plain.pool, torch.fx.GraphModule)
    assert not any(parameter.requires_grad for parameter in plain.pool.parameters())


class Twice(nn.Module):
    """Calls one layer with maps of two sizes."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, input):
        return self.layer(input).mean() + self.layer(input[..., 1:]).mean()


@pytest.mark.parametrize("layer", [NIFFConv2d(1, 1), DiffStride2d(), SpectralPool2d(2.0)])
def test_maps_of_two_sizes_are_refused(layer):
    refused(
        f"fold cannot replace the {type(layer).__name__} at 'layer': it is called with maps of "
        "several sizes: [(12, 9), (12, 10)]",
        Twice(layer),
    )


def test_a_kernel_folds_for_maps_of_two_sizes():
    assert_folds(Twice(FlexConv2d(1, 1, 9, init_size=3)), torch.randn(IMAGE), 1e-5)


class Unused(nn.Module):
    """Has a layer that it does not call."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def forward(self, input):
        return 2 * input


def test_a_kernel_folds_without_being_called():
    layer = FlexConv2d(1, 2, 9, init_size=5)
    plain, report = sizeless.fold(Unused(layer), torch.randn(IMAGE))
    assert plain.layer.kernel_size == layer.size
    assert report.changes[0].macs_before == 0


@pytest.mark.parametrize("layer", [NIFFConv2d(1, 1), DiffStride2d()])
def test_a_layer_for_one_size_of_maps_must_be_called(layer):
    refused(
        f"fold cannot replace the {type(layer).__name__} at 'layer': it is not called for the "
        "example input, so the size of its maps is not known; take it out, or give an input for "
        "which it is called",
        Unused(layer),
    )


def test_the_authors_layer_has_no_plain_form():
    for model, path in (
        (OfficialDiffStride2d(2.0), "the top"),
        (nn.Sequential(nn.ReLU(), OfficialDiffStride2d(2.0)), "1"),
    ):
        refused(
            f"fold cannot replace the OfficialDiffStride2d at {path!r}: it has no plain form; put "
            "a layer of sizeless.nn in its place",
            model,
        )


class OwnForward(FlexConv2d):
    """Computes something else."""

    def forward(self, input):
        return 2 * super().forward(input)


def test_a_forward_of_its_own_is_refused():
    refused(
        "fold cannot replace the OwnForward at '0': it has a forward of its own, which may compute "
        "something else",
        nn.Sequential(OwnForward(1, 1, 5)),
    )


def test_nothing_to_fold():
    model = nn.Sequential(nn.Conv2d(1, 2, 3))
    plain, report = sizeless.fold(model, torch.randn(IMAGE))
    assert report.changes == ()
    assert report.error == 0
    assert plain is not model


@pytest.mark.parametrize("energy", [0.5, 0.9, 0.99, 0.99999])
@pytest.mark.parametrize("groups", [1, 4])
def test_energy_is_what_the_taps_around_the_middle_hold(energy, groups):
    layer, size = NIFFConv2d(4, 4, groups=groups), (12, 9)
    plain, report = sizeless.fold(layer, torch.randn(1, 4, *size), energy=energy)
    conv = plain[-1] if isinstance(plain, nn.Sequential) else plain
    kernel = layer.spatial_kernel(size).detach().double().flip((2, 3))
    total = kernel.square().sum()
    shares, arm = [], max(conv.kernel_size) // 2
    for reach in (arm - 1, arm):
        rows, columns = (
            slice(max((n - 1) // 2 - reach, 0), (n - 1) // 2 + reach + 1) for n in size
        )
        kept = kernel[..., rows, columns]
        shares.append(float(kept.square().sum() / total) if kept.numel() else 0.0)
    assert torch.equal(conv.weight.double(), kept)
    assert shares[0] < energy <= shares[1]
    assert all(taps % 2 or taps == n for taps, n in zip(conv.kernel_size, size, strict=True))
    expected = float(((total - kept.square().sum()).clamp_min(0) / total).sqrt())
    assert report.changes[0].error == pytest.approx(expected, abs=1e-7)


def test_all_energy_is_all_that_is_not_zero():
    layer = NIFFConv2d(2, 2)
    plain, report = sizeless.fold(layer, torch.randn(1, 2, 8, 9), energy=1.0)
    assert plain[-1].kernel_size == (8, 9)
    assert report.changes[0].error == 0
    with torch.no_grad():
        # The same at every frequency: one tap in the middle.
        for part, value in ((layer.real, 1.0), (layer.imag, 0.0)):
            part.output.weight.zero_()
            part.output.bias.fill_(value)
    plain, report = sizeless.fold(layer, torch.randn(1, 2, 8, 9), energy=0.999999)
    assert plain.kernel_size == (1, 1)
    assert report.error < 1e-5


def test_energy_of_no_energy():
    layer = NIFFConv2d(2, 2)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.zero_()
    plain, report = sizeless.fold(layer, torch.randn(1, 2, 8, 9), energy=0.9)
    assert plain.kernel_size == (1, 1)
    assert report.changes[0].error == report.error == 0


def test_the_error_of_the_network_is_reported():
    model, image = network(), torch.randn(IMAGE)
    plain, report = sizeless.fold(model, image, energy=0.9)
    assert report.error == pytest.approx(error_of(plain(image), model(image)), rel=1e-6)
    assert report.error > 1e-3


def test_macs_are_those_of_the_folded_network():
    model, image = network(), torch.randn(IMAGE)
    plain, report = sizeless.fold(model, image)
    macs = {}
    for row in sizeless.cost(plain, image).rows:
        macs[row.name.split(".")[0]] = macs.get(row.name.split(".")[0], 0) + int(row.macs)
    assert macs == {change.name: change.macs_after for change in report.changes}


def test_the_report_names_sizes_before_and_after():
    model = network()
    _, report = sizeless.fold(model, torch.randn(IMAGE))
    kinds = ["FlexConv2d", "NIFFConv2d", "DiffStride2d", "SpectralPool2d"]
    assert [change.before for change in report.changes] == kinds
    assert report.changes[0].size_before == report.changes[0].size_after == (5, 5)
    assert report.changes[1].size_after == (12, 10)
    assert report.changes[2].size_before == model[2].stride
    assert report.left_alone == ()
    assert "4 of 4 layers changed" in str(report)


def test_norms_that_are_not_fused_when_the_model_cannot_be_traced():
    class Data(nn.Module):
        def forward(self, input):
            return input if input.sum() > 0 else -input

    with pytest.raises(ValueError, match=r"^fuse_norms needs a model"):
        sizeless.fold(nn.Sequential(Data()), torch.randn(IMAGE), fuse_norms=True)


def test_fusing_norms_keeps_the_function():
    model = nn.Sequential(FlexConv2d(1, 4, 9, init_size=5), nn.BatchNorm2d(4), DiffStride2d())
    nn.init.normal_(model[1].running_mean)
    plain, _ = assert_folds(model, torch.randn(IMAGE), 1e-5, fuse_norms=True)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in plain.modules())
    assert not ours_in(plain)


@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        ((nn.Conv2d, torch.randn(IMAGE)), {}, TypeError, "model must be an instance of"),
        ((network(), [1]), {}, TypeError, "example_input must be a tensor, or a tuple"),
        ((network(), torch.randn(IMAGE)), {"energy": 0}, ValueError, "energy must be a finite"),
        ((network(), torch.randn(IMAGE)), {"energy": 1.1}, ValueError, "energy must be a finite"),
        ((network(), torch.randn(IMAGE)), {"energy": "all"}, TypeError, "energy must be a number"),
        ((network(), torch.randn(IMAGE)), {"fuse_norms": 1}, TypeError, "fuse_norms must be True"),
    ],
)
def test_wrong_arguments(arguments, options, error, message):
    with pytest.raises(error, match=f"^{message}"):
        sizeless.fold(*arguments, **options)


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_weights_that_a_hook_computes_are_copied() -> None:
    conv = torch.nn.utils.weight_norm(nn.Conv1d(2, 2, 3, padding=1))
    model = nn.Sequential(conv, sizeless.FlexConv1d(2, 2, 9)).eval()
    input = torch.randn(1, 2, 16)
    model(input)
    plain, report = sizeless.fold(model, input)
    assert report.error == 0
    assert type(plain[1]) is nn.Conv1d
