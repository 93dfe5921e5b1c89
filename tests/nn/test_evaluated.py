"""Compiled evaluation asks layers for their kernels, and follows them."""

from __future__ import annotations

import copy
import gc
import pickle

import pytest
import torch
from torch import nn

import sizeless
from sizeless.nn import evaluated

from .graphs import Graphs

LAYERS = {
    "flex": (lambda: sizeless.FlexConv2d(3, 4, 9, init_size=5), (2, 3, 8, 7)),
    "strided": (lambda: sizeless.FlexConv2d(3, 4, 9, stride=(2, 3)), (2, 3, 8, 7)),
    "causal": (lambda: sizeless.FlexConv1d(2, 2, 12, causal=True), (2, 2, 12)),
    "separable": (lambda: sizeless.SeparableFlexConv1d(2, 3, 9), (2, 2, 12)),
    "circular": (lambda: sizeless.NIFFConv2d(3, 4), (2, 3, 8, 7)),
    "zeros": (lambda: sizeless.NIFFConv2d(4, 4, groups=4, boundary="zeros"), (2, 4, 6, 5)),
}
layers = pytest.mark.parametrize("kind", LAYERS)


@pytest.fixture(autouse=True)
def _no_graphs_are_left():
    """The compiler counts the graphs of layers that are gone, until rubbish is collected."""
    yield
    torch._dynamo.reset()


def made(kind):
    make, shape = LAYERS[kind]
    return make().eval(), torch.randn(shape)


@layers
def test_compiled_evaluation_is_eager_evaluation_with_what_it_keeps(kind):
    layer, input = made(kind)
    graphs = Graphs()
    run = graphs.compile(layer)
    with torch.no_grad():
        expected = layer(input)
        for _ in range(2):
            torch.testing.assert_close(run(input), expected)
        for parameter in layer.parameters():
            parameter.mul_(0.9)
        changed = layer(input)
        torch.testing.assert_close(run(input), changed)
    assert not torch.allclose(changed, expected)
    assert graphs.count == 1


def watched_renderings(layer, monkeypatch):
    renderings = []
    original = type(layer)._factors

    def factors(self):
        renderings.append(self)
        return original(self)

    monkeypatch.setattr(type(layer), "_factors", factors)
    return renderings


def test_nothing_is_rendered_twice(monkeypatch):
    layer, input = made("flex")
    renderings = watched_renderings(layer, monkeypatch)
    run = Graphs().compile(layer)
    with torch.no_grad():
        for _ in range(3):
            run(input)
        assert len(renderings) == 1
        layer.bias.add_(1.0)
        run(input)
    assert len(renderings) == 2


def test_other_parameters_are_used_where_they_are_given():
    layer, input = made("flex")
    other = {name: value.detach() * 0.9 for name, value in layer.named_parameters()}

    def call(parameters, input):
        return torch.func.functional_call(layer, parameters, (input,))

    with torch.no_grad():
        expected = call(other, input)
        torch.testing.assert_close(Graphs().compile(call)(other, input), expected)
        assert not torch.allclose(layer(input), expected)


@pytest.mark.parametrize("kind", ["flex", "strided", "circular"])
def test_channels_stay_last_in_memory(kind):
    layer, input = made(kind)
    input = input.contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        expected, output = layer(input), Graphs().compile(layer)(input)
    assert expected.is_contiguous(memory_format=torch.channels_last)
    assert output.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(output, expected)


def test_tied_parameters_are_given_once(monkeypatch):
    layer, input = made("flex")
    layer.kernel.mixing[2] = layer.kernel.mixing[1]
    changed = {name: value.detach() * 0.9 for name, value in layer.named_parameters()}

    def call(parameters, input):
        return torch.func.functional_call(layer, parameters, (input,))

    run = Graphs().compile(layer)
    with torch.no_grad():
        expected = copy.deepcopy(layer)(input)
        renderings = watched_renderings(layer, monkeypatch)
        for _ in range(2):
            torch.testing.assert_close(run(input), expected)
        assert len(renderings) == 1
        torch.testing.assert_close(Graphs().compile(call)(changed, input), call(changed, input))


@pytest.mark.parametrize("way", [copy.deepcopy, lambda one: pickle.loads(pickle.dumps(one))])
def test_copies_are_layers_of_their_own(way):
    layer, input = made("flex")
    twin = way(layer)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(0.9)
        expected = twin(input)
        torch.testing.assert_close(Graphs().compile(twin)(input), expected)
    assert int(twin.number) != int(layer.number)


def test_many_layers_share_one_graph():
    model = nn.Sequential(*[sizeless.FlexConv2d(2, 2, 5) for _ in range(3)]).eval()
    graphs, input = Graphs(), torch.randn(1, 2, 6, 6)
    run = graphs.compile(model)
    with torch.no_grad():
        torch.testing.assert_close(run(input), model(input))
    assert graphs.count == 1


def test_numbers_are_no_state_and_leave_with_their_layers():
    layer, _ = made("flex")
    number = int(layer.number)
    assert "number" not in layer.state_dict()
    assert evaluated._layers[number] is layer
    del layer
    gc.collect()
    assert number not in evaluated._layers
    with pytest.raises(RuntimeError, match="compile it again"):
        evaluated._run(torch.zeros(1, 1, 4), [], torch.tensor(number), 1, [1])


@layers
def test_the_operator_keeps_its_promises(kind):
    layer, input = made(kind)
    targets = [m for m in layer.modules() if hasattr(m, "number")]
    part = targets[0]
    channels, stride = part.out_channels, getattr(part, "stride", (1,) * part.ndim)
    arguments = input, [p.detach() for p in part.parameters()], part.number, channels, list(stride)
    torch.library.opcheck(
        torch.ops.sizeless.evaluate.default, arguments, test_utils="test_faketensor"
    )
