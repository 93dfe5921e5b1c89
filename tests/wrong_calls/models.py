"""Wrong calls of what looks at whole models, of the networks, and of the authors' layers."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import nn

from sizeless import (
    DiffStride1d,
    FlexConv1d,
    aliasing_penalty,
    change_resolution_,
    complexity_penalty,
    cost,
    param_groups,
    project_sizes_,
    refresh_sizes,
    sizes,
)
from sizeless.compat import (
    OfficialDiffStride2d,
    OfficialSpectralPool2d,
    load_official_flexconv,
    niff_from_official,
)
from sizeless.kernels import SIREN
from sizeless.models import FlexNet, FlexTCN, flexnet3, flextcn2, flextcn4
from sizeless.models.small import DiffStrideNet, NIFFNet

from .row import argument, filled, wrong

NAN, INF = math.nan, math.inf
SIGNAL, IMAGE = torch.zeros(1, 2, 8), torch.zeros(1, 3, 8, 8)

linear, flex, pool = nn.Linear(1, 1), FlexConv1d(2, 2, 5), DiffStride1d()
frozen = nn.Linear(1, 1).requires_grad_(False)
fixed_padding = nn.Sequential(flex, nn.ReLU(), FlexConv1d(2, 2, 5, padding=1))
no_frequency = nn.Sequential(nn.ReLU(), nn.Sequential(FlexConv1d(2, 2, 5, kernel=SIREN)))
groups = partial(param_groups, linear, lr=0.1)
aliasing = partial(aliasing_penalty, flex)
complexity = partial(complexity_penalty, pool, example_input=SIGNAL)

SIZES = [
    argument(sizes, "model", 3, TypeError, "an instance of torch.nn.Module"),
    argument(sizes, "model", [flex], TypeError, "an instance of torch.nn.Module"),
    argument(sizes, "model", FlexConv1d, TypeError, "an instance of torch.nn.Module", "a class"),
    argument(project_sizes_, "model", None, TypeError, "an instance of torch.nn.Module"),
    argument(refresh_sizes, "model", None, TypeError, "an instance of torch.nn.Module"),
    wrong(
        "refresh_sizes: a stride that became NaN",
        lambda: refresh_sizes(nn.Sequential(filled(DiffStride1d(), "log2_stride", NAN))),
        ValueError,
        "stride is [nan]",
        "learning rate",
    ),
    argument(partial(param_groups, lr=0.1), "model", "m", TypeError, "torch.nn.Module"),
    argument(partial(param_groups, lr=0.1), "model", nn.ReLU(), ValueError, "nothing to train"),
    argument(partial(param_groups, lr=0.1), "model", frozen, ValueError, "requires_grad_()"),
    argument(groups, "lr", -0.1, ValueError, "at least 0"),
    argument(groups, "lr", NAN, ValueError, "a finite number of at least 0"),
    argument(groups, "lr", "0.1", TypeError, "a number"),
    argument(groups, "lr", None, TypeError, "a number"),
    argument(groups, "size_lr", -1, ValueError, "at least 0"),
    argument(groups, "size_lr", True, TypeError, "a number"),
    argument(groups, "weight_decay", INF, ValueError, "a finite number of at least 0"),
    argument(partial(change_resolution_, factor=2), "model", 3, TypeError, "torch.nn.Module"),
    argument(partial(change_resolution_, factor=2), "model", linear, ValueError, "FlexConv layer"),
    argument(partial(change_resolution_, flex), "factor", -1, ValueError, "above 0"),
    argument(partial(change_resolution_, flex), "factor", NAN, ValueError, "a finite number"),
    wrong(
        "change_resolution_: one layer with fixed padding",
        partial(change_resolution_, fixed_padding, 2),
        ValueError,
        "padding='same'",
        "padding=(1,) in layer '2'",
    ),
]

PENALTIES = [
    argument(aliasing_penalty, "model", 3, TypeError, "torch.nn.Module"),
    argument(aliasing_penalty, "model", linear, ValueError, "no FlexConv layer"),
    argument(aliasing, "form", "sum", ValueError, "'together' or 'summed'"),
    argument(aliasing, "bound", "loose", ValueError, "'tight' or 'official'"),
    argument(aliasing, "stddevs", -1, ValueError, "at least 0"),
    argument(aliasing, "stddevs", INF, ValueError, "a finite number"),
    argument(aliasing, "stddevs", "2", TypeError, "a number"),
    argument(aliasing, "include_window", "no", TypeError, "True or False"),
    wrong(
        "aliasing_penalty: SIREN in a model",
        partial(aliasing_penalty, no_frequency),
        ValueError,
        "layer '1.0': SIREN",
        "use MAGNet",
    ),
    argument(partial(complexity_penalty, example_input=SIGNAL), "model", 3, TypeError, "Module"),
    argument(
        partial(complexity_penalty, example_input=SIGNAL),
        "model",
        nn.Conv1d(2, 2, 1),
        ValueError,
        "no DiffStride layer",
        "form='macs'",
    ),
    argument(complexity, "form", "total", ValueError, "'cumulative' or 'macs'"),
    argument(complexity, "example_input", None, TypeError, "a tensor, or a tuple"),
    argument(partial(cost, example_input=SIGNAL), "model", nn.Conv1d, TypeError, "torch.nn.Module"),
    argument(partial(cost, example_input=SIGNAL), "model", nn.ReLU(), ValueError, "counted"),
    argument(partial(cost, pool), "example_input", [SIGNAL], TypeError, "a tensor, or a tuple"),
    argument(partial(cost, pool), "example_input", (1, 2, 8), TypeError, "a tensor, or a tuple"),
    argument(partial(cost, pool), "example_input", (), TypeError, "a tensor, or a tuple"),
    wrong(
        "cost: wrong channels",
        partial(cost, flex, IMAGE[:, :, 0]),
        ValueError,
        "2 channels",
        "got 3",
    ),
]

tcn = partial(FlexTCN, in_channels=1, num_classes=4, kernel_size=9, width=2)
net = partial(FlexNet, in_channels=1, num_classes=4, kernel_size=9, widths=(2,))
stride_net = partial(DiffStrideNet, 1, 4)
niff_net = partial(NIFFNet, 1, 4, width=4, blocks=1)

NETWORKS = [
    argument(tcn, "in_channels", 0, ValueError, "at least 1"),
    argument(tcn, "num_classes", 10.0, TypeError, "an int"),
    argument(tcn, "kernel_size", 0, ValueError, "at least 1"),
    argument(tcn, "kernel_size", "9", TypeError, "an int"),
    argument(tcn, "blocks", 0, ValueError, "at least 1"),
    argument(tcn, "blocks", True, TypeError, "an int"),
    argument(tcn, "width", 0, ValueError, "at least 1"),
    argument(tcn, "dropout", 1.5, ValueError, "at least 0 and at most 1"),
    argument(tcn, "dropout", NAN, ValueError, "at least 0 and at most 1"),
    argument(tcn, "dropout", "0.1", TypeError, "a number"),
    argument(tcn, "init_size", 10, ValueError, "between 1 and kernel_size=(9,)"),
    argument(tcn, "windows", 3, TypeError, "FlexTCN takes no option", "init_size"),
    argument(tcn, "causal", False, TypeError, "FlexTCN takes no option", "init_size"),
    argument(tcn, "stride", 2, TypeError, "FlexTCN takes no option", "init_size"),
    argument(partial(flextcn4, kernel_size=9), "widht", 3, TypeError, "takes no option"),
    argument(flextcn2, "kernel_size", -1, ValueError, "at least 1"),
    argument(tcn(), "input", IMAGE, ValueError, "3 dimensions"),
    argument(tcn(), "input", SIGNAL, ValueError, "1 channels"),
    argument(tcn(), "input", torch.zeros(1, 1, 0), ValueError, "empty spatial axis"),
    argument(net, "in_channels", "1", TypeError, "an int"),
    argument(net, "num_classes", 0, ValueError, "at least 1"),
    argument(net, "kernel_size", 8, ValueError, "must be odd"),
    argument(net, "widths", (), ValueError, "one or more ints"),
    argument(net, "widths", 8, TypeError, "a tuple of ints"),
    argument(net, "widths", (8, 8.0), TypeError, "ints only"),
    argument(net, "dropout", -0.1, ValueError, "at least 0 and at most 1"),
    argument(net, "padding", "valid", TypeError, "FlexNet takes no option", "init_size"),
    argument(net, "kernels", 3, TypeError, "FlexNet takes no option", "kernel"),
    argument(flexnet3, "width", 0, ValueError, "at least 1"),
    argument(flexnet3, "width", "8", TypeError, "an int"),
    argument(net(), "input", IMAGE, ValueError, "1 channels"),
    argument(net(), "input", IMAGE.long(), TypeError, "floating-point"),
    argument(stride_net, "widths", (0,), ValueError, "at least 1"),
    argument(stride_net, "stride", 0.5, ValueError, "at least 1"),
    argument(stride_net, "smooth", 3, TypeError, "DiffStrideNet takes no option", "smoothness"),
    argument(stride_net(), "input", IMAGE, ValueError, "1 channels"),
    argument(niff_net, "width", 2.5, TypeError, "an int"),
    argument(niff_net, "blocks", 0, ValueError, "at least 1"),
    argument(niff_net, "groups", 2, TypeError, "NIFFNet takes no option", "boundary"),
    argument(niff_net(), "input", SIGNAL, ValueError, "4 dimensions"),
]

official = partial(OfficialDiffStride2d, 2.0)
FILTER = "mlp_real.layer_mpl1.weight"

OFFICIAL = [
    argument(partial(load_official_flexconv, state_dict={}), "model", linear, TypeError, "FlexTCN"),
    argument(partial(load_official_flexconv, tcn()), "state_dict", None, TypeError, "torch.load"),
    argument(partial(load_official_flexconv, tcn()), "state_dict", "a.pt", TypeError, "torch.load"),
    wrong(
        "load_official_flexconv: empty",
        partial(load_official_flexconv, tcn(), {}),
        ValueError,
        "state_dict does not fit FlexTCN",
        "missing 'backbone.0.cconv1.mask_params'",
    ),
    wrong(
        "load_official_flexconv: a checkpoint",
        partial(load_official_flexconv, tcn(), {"epoch": 3}),
        TypeError,
        "state_dict",
        "names to tensors",
        "int under 'epoch'",
    ),
    wrong(
        "load_official_flexconv: other kernels",
        partial(load_official_flexconv, tcn(kernel=SIREN), {}),
        TypeError,
        "MAGNet",
        "the model has SIREN",
    ),
    argument(niff_from_official, "state_dict", [FILTER], TypeError, "from names to tensors"),
    wrong(
        "niff_from_official: empty",
        partial(niff_from_official, {}),
        ValueError,
        "got 0",
        "one or two",
    ),
    wrong(
        "niff_from_official: no tensor",
        partial(niff_from_official, {"mlp.weight": 3}),
        TypeError,
        "state_dict",
        "int under 'mlp.weight'",
    ),
    wrong(
        "niff_from_official: another layer",
        partial(niff_from_official, {"conv.weight": IMAGE}),
        ValueError,
        "'conv.weight'",
        "'mlp.weight'",
    ),
    wrong(
        "niff_from_official: a 1x1 of one axis",
        partial(niff_from_official, {"mlp.weight": torch.ones(3)}),
        ValueError,
        "state_dict['mlp.weight']",
        "2 dimensions",
        "(3,)",
    ),
    wrong(
        "niff_from_official: half a layer",
        partial(niff_from_official, {FILTER: torch.ones(8, 2, 1, 1)}),
        ValueError,
        "both mlp_real and mlp_imag",
        FILTER,
    ),
    wrong(
        "niff_from_official: three layers",
        partial(niff_from_official, {f"{i}.mlp.weight": torch.ones(2, 2) for i in range(3)}),
        ValueError,
        "one or two layers",
        "got 3",
    ),
    argument(OfficialDiffStride2d, "stride", 0.5, ValueError, "at least 1"),
    argument(OfficialDiffStride2d, "stride", "2", TypeError, "a number"),
    argument(official, "smoothness", 0, ValueError, "above 0", "OfficialSpectralPool2d"),
    argument(official, "smoothness", (4.0,), TypeError, "one number"),
    argument(official, "crop", "no", TypeError, "True or False"),
    argument(official, "shared", 1, TypeError, "True or False"),
    argument(official, "min_stride", True, TypeError, "numbers"),
    argument(official, "max_stride", 0.5, ValueError, "at least min_stride"),
    argument(official(), "input", SIGNAL, ValueError, "4 dimensions"),
    wrong(
        "OfficialDiffStride2d: a map as high as the ramp",
        partial(official(), IMAGE[:, :, :4]),
        ValueError,
        "height",
        "smoothness (4.0)",
        "got 4 x 8",
    ),
    wrong(
        "OfficialDiffStride2d: a stride that became NaN",
        lambda: filled(official(), "strides", NAN)(IMAGE),
        ValueError,
        "strides is [nan, nan]",
    ),
    argument(OfficialSpectralPool2d, "stride", True, TypeError, "numbers only"),
    argument(OfficialSpectralPool2d(2.0), "input", IMAGE.int(), TypeError, "floating-point"),
    argument(OfficialSpectralPool2d(2.0).output_size, "input_size", 8.0, TypeError, "an int"),
]
