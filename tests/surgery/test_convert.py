"""What every conversion keeps: the original, shared modules, hooks, modes; and wrong calls."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.prune import l1_unstructured

import sizeless

from .folding import error_of

OPERATIONS = [{"conv": "flex"}, {"conv": "niff"}, {"downsample": "diffstride"}]
BOTH = {"conv": "flex", "downsample": "diffstride"}


def small():
    """A network with something for every operation."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Conv2d(4, 4, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Dropout(0.5),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


INPUT = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("operation", [*OPERATIONS, BOTH])
@pytest.mark.parametrize("dry_run", [False, True])
def test_the_original_stays_as_it_is(operation, dry_run):
    model = small()
    model[1].eval()
    model[3].register_forward_hook(lambda *_: None)
    model(INPUT).sum().backward()
    before = copy.deepcopy(model.state_dict())
    modules = list(model.modules())
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    modes = [module.training for module in modules]
    hooks = [len(module._forward_hooks) for module in modules]
    new, report = sizeless.convert(model, INPUT, **operation, dry_run=dry_run)
    assert (new is model) is dry_run
    assert report.changed
    assert list(model.modules()) == modules
    assert [module.training for module in modules] == modes
    assert [len(module._forward_hooks) for module in modules] == hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert torch.equal(parameter.grad, gradient)
    if not dry_run:
        assert not set(model.parameters()) & set(new.parameters())


@pytest.mark.parametrize("operation", [*OPERATIONS, BOTH])
def test_training_modes_are_kept(operation):
    model = small().eval()
    model[4].train()
    new, _ = sizeless.convert(model, INPUT, **operation)
    for place, module in enumerate(new):
        assert {part.training for part in module.modules()} == {place == 4}
    assert not new.training


@pytest.mark.parametrize("operation", OPERATIONS)
def test_hooks_act_on_what_is_new(operation):
    model, called = small(), []
    for place in (2, 5):
        model[place].register_forward_pre_hook(lambda *_, place=place: called.append(place))
        model[place].register_forward_hook(
            lambda *_, place=place: called.append(-place), with_kwargs=True
        )
    new, _ = sizeless.convert(model, INPUT, **operation)
    called.clear()
    new(INPUT)
    assert called == [2, -2, 5, -5]


def test_a_hook_changes_the_output_of_what_is_new():
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, padding=1))
    model[1].register_forward_hook(lambda _module, _args, output: output + 7)
    new, report = sizeless.convert(model, INPUT, conv="flex")
    assert error_of(new(INPUT), model(INPUT)) < 1e-5
    assert report.error < 1e-5


@pytest.mark.parametrize("operation", OPERATIONS)
def test_shared_modules_stay_shared(operation):
    conv = nn.Conv2d(2, 2, 3, padding=1)
    pool = nn.MaxPool2d(2)
    model = nn.Sequential(nn.Conv2d(1, 2, 1), conv, pool, conv, pool)
    new, report = sizeless.convert(model, INPUT, **operation)
    assert new[1] is new[3]
    assert new[2] is new[4]
    assert len(report.changed) == 1


def test_tied_weights_are_left_alone():
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3, padding=1) for _ in range(3)))
    model[2].weight = model[1].weight
    new, report = sizeless.convert(model, torch.randn(1, 2, 9, 9), conv="flex")
    assert new[2].weight is new[1].weight
    assert {c.reason for c in report.left_alone} == {
        "the stem",
        "its weight is another module's, too",
    }


def test_tied_weights_stay_tied_when_strides_are_learned():
    model = nn.Sequential(*(nn.Conv2d(2, 2, 3, 2, padding=1) for _ in range(2)))
    model[1].weight = model[0].weight
    input = torch.randn(1, 2, 17, 17)
    new, report = sizeless.convert(model, input, downsample="diffstride", stem=True)
    assert new[0][0].weight is new[1][0].weight
    assert len(report.changed) == 2


@pytest.mark.parametrize(
    "computed", [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm]
)
@pytest.mark.parametrize("operation", OPERATIONS)
def test_computed_weights_are_left_alone(operation, computed):
    model = nn.Sequential(nn.Conv2d(2, 2, 1), computed(nn.Conv2d(2, 2, 3, 2, padding=1))).eval()
    input = torch.randn(1, 2, 9, 9)
    new, report = sizeless.convert(model, input, **operation)
    assert error_of(new(input), model(input)) == 0
    reason = "ParametrizedConv2d is a subclass that may compute something else"
    assert report.left_alone[-1].reason == reason
    assert report.notes[1 if operation.get("conv") == "niff" else 0 :] == ()


@pytest.mark.parametrize("operation", OPERATIONS)
def test_weights_that_hooks_compute_are_left_alone(operation):
    conv = nn.Conv2d(2, 2, 3, 2, padding=1)
    l1_unstructured(conv, "weight", 0.5)
    model = nn.Sequential(nn.Conv2d(2, 2, 1), conv)
    input = torch.randn(1, 2, 9, 9)
    new, report = sizeless.convert(model, input, **operation)
    assert error_of(new(input), model(input)) == 0
    assert report.left_alone[-1].reason == "its weight is computed from something else"
    new(input).sum().backward()
    assert new[1].weight_orig.grad is not None


class Quiet(nn.Conv2d):
    """Computes something else."""

    def forward(self, input):
        return 0 * super().forward(input)


class Forgetful(nn.Module):
    """Has a convolution that it does not call, and convolves with another's weight."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(1, 2, 3, padding=1)
        self.idle = nn.Conv2d(2, 2, 3, 2, padding=1)
        self.used = nn.Conv2d(2, 2, 3, padding=1)
        self.kernel = nn.Parameter(torch.randn(2, 2, 5, 5))

    def forward(self, input):
        hidden = F.conv2d(self.first(input), self.used.weight, padding=1)
        return F.conv2d(self.used(hidden), self.kernel, padding=2)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_subclasses_are_left_alone(operation):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), Quiet(2, 2, 3, 2, 1))
    new, report = sizeless.convert(model, INPUT, **operation)
    assert type(new[1]) is Quiet
    assert "Quiet is a subclass that may compute something else" in str(report)


def test_convolutions_by_functions_are_told():
    new, report = sizeless.convert(Forgetful(), INPUT, conv="flex")
    assert isinstance(new.used, nn.Conv2d)
    reasons = {change.name: change.reason for change in report.left_alone}
    assert reasons == {
        "first": "the stem",
        "idle": "it is not called for the example input",
        "used": "the model convolves with its weight",
    }
    assert report.notes[-1] == (
        "the model convolves by a function with a weight of shape (2, 2, 5, 5): only modules can "
        "be converted; put the weight into an nn.Conv layer to include it"
    )
    _, report = sizeless.convert(Forgetful(), INPUT, downsample="diffstride")
    assert [c.reason for c in report.changes] == ["it is not called for the example input"]


@pytest.mark.parametrize("operation", OPERATIONS)
def test_an_input_without_a_batch_axis_leaves_layers_alone(operation):
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, 2, padding=1))
    new, report = sizeless.convert(model, INPUT[0], **operation)
    assert torch.equal(new(INPUT[0]), model(INPUT[0]))
    assert report.left_alone[-1].reason == "it is called without a batch axis"


def test_a_model_that_is_a_layer_becomes_another():
    new, _ = sizeless.convert(nn.Conv2d(1, 2, 3, padding=1), INPUT, conv="flex", stem=True)
    assert isinstance(new, sizeless.FlexConv2d)
    new, _ = sizeless.convert(nn.Conv2d(1, 1, 3, padding=1), INPUT, conv="niff", rules={"": True})
    assert isinstance(new, sizeless.SeparableNIFFConv2d)
    new, _ = sizeless.convert(nn.MaxPool2d(2), INPUT, downsample="diffstride")
    assert isinstance(new[-1], sizeless.DiffStride2d)
    new, report = sizeless.convert(nn.Conv2d(1, 2, 3, padding=1), INPUT, conv="flex")
    assert type(new) is nn.Conv2d
    assert "the stem: (the model)" in str(report)


def test_strides_and_kernels_are_learned_together():
    new, report = sizeless.convert(small(), INPUT, **BOTH)
    assert [type(part) for part in new[2]] == [sizeless.FlexConv2d, sizeless.DiffStride2d]
    assert isinstance(new[5], sizeless.FlexConv2d)
    assert type(new[0]) is nn.Conv2d
    assert report.error is None
    assert [change.name for change in report.changed] == ["2", "2.0", "5"]
    loss = new(INPUT).square().mean()
    loss.backward()
    assert new[2][1].log2_stride.grad.count_nonzero() == 2
    assert new[2][0].window.log_sigma.grad.count_nonzero() == 2


def test_several_inputs_do():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(1, 2, 3, padding=1)
            self.second = nn.Conv1d(1, 2, 3, padding=1)

        def forward(self, image, sound):
            return {"image": self.first(image), "sound": [self.second(sound)]}

    inputs = (INPUT, torch.randn(2, 1, 30))
    new, report = sizeless.convert(Two(), inputs, conv="flex", stem=True)
    assert isinstance(new.second, sizeless.FlexConv1d)
    assert report.error < 1e-5


def test_a_converted_network_can_be_saved_whole():
    new, _ = sizeless.convert(small().eval(), INPUT, **BOTH)
    file = io.BytesIO()
    torch.save(new, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(INPUT), new(INPUT))


WRONG = [
    ({}, ValueError, "give conv='flex' or conv='niff', or downsample='diffstride', or both"),
    ({"conv": "fft"}, ValueError, "conv must be 'flex' or 'niff', got 'fft'"),
    ({"downsample": "blur"}, ValueError, "downsample must be 'diffstride', got 'blur'"),
    (
        {"conv": "flex", "stride_options": {"transition": 0.5}},
        ValueError,
        "stride_options={'transition': 0.5} need downsample='diffstride'",
    ),
    (
        {"downsample": "diffstride", "conv_options": {"bias": False}},
        ValueError,
        "conv_options={'bias': False} need conv='flex' or conv='niff'",
    ),
    (
        {"conv": "flex", "conv_options": [3]},
        TypeError,
        "conv_options must be a dictionary, got [3]",
    ),
    ({"conv": "flex", "stem": 1}, TypeError, "stem must be True or False, got 1"),
    ({"conv": "flex", "dry_run": "no"}, TypeError, "dry_run must be True or False, got 'no'"),
    (
        {"conv": "flex", "rules": "layer1"},
        TypeError,
        "rules must be a dictionary of path patterns, or a function (path, module), got 'layer1'",
    ),
    (
        {"conv": "niff", "conv_options": {"fit": -1}},
        ValueError,
        "layer '5': fit must be at least 0, got -1",
    ),
]


@pytest.mark.parametrize(("arguments", "error", "message"), WRONG)
def test_wrong_arguments_are_refused(arguments, error, message):
    with pytest.raises(error) as raised:
        sizeless.convert(small(), INPUT, **arguments)
    assert str(raised.value) == message


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match=r"^conv_options have no size=5; allowed are .*kernel_size"):
        sizeless.convert(small(), INPUT, conv="flex", conv_options={"size": 5})
    with pytest.raises(TypeError, match=r"^stride_options have no stride=2; allowed are "):
        sizeless.convert(small(), INPUT, downsample="diffstride", stride_options={"stride": 2})


def test_a_model_must_be_a_module_and_an_example_a_tensor():
    with pytest.raises(TypeError, match=r"^model must be an instance of torch\.nn\.Module, got "):
        sizeless.convert(nn.Conv2d, INPUT, conv="flex")
    with pytest.raises(TypeError, match=r"^example_input must be a tensor, or a tuple of all "):
        sizeless.convert(small(), [INPUT], conv="flex")
