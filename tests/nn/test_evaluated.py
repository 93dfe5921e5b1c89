"""Compiled evaluation asks layers for their kernels, and follows them."""

from __future__ import annotations

import copy
import gc
import pickle
from concurrent.futures import ThreadPoolExecutor

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


INPUTS = {
    "as usual": lambda x: x,
    "batch of one": lambda x: x[:1],
    "empty batch": lambda x: x[:0],
    "one sample wide": lambda x: x[..., :1],
    "turned": lambda x: x.transpose(-1, 0).contiguous().transpose(-1, 0),
    "channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1),
    "a part of channels last": lambda x: x.movedim(1, -1).contiguous().movedim(-1, 1)[..., 1:],
    "one wide, channels last": lambda x: x[..., :1].movedim(1, -1).contiguous().movedim(-1, 1),
}


@pytest.mark.parametrize("given", INPUTS)
@layers
def test_the_operator_keeps_its_promises(kind, given):
    layer, input = made(kind)
    part = next(m for m in layer.modules() if hasattr(m, "number"))
    channels, stride = part.out_channels, getattr(part, "stride", (1,) * part.ndim)
    parameters = [p.detach() for p in evaluated._parameters(part)]
    arguments = INPUTS[given](input), parameters, part.number, channels, list(stride)
    torch.library.opcheck(
        torch.ops.sizeless.evaluate.default, arguments, test_utils="test_faketensor"
    )
    with torch.no_grad():
        output = torch.ops.sizeless.evaluate.default(*arguments)
        torch.testing.assert_close(output, part(INPUTS[given](input)), check_stride=True)


@layers
def test_some_other_parameters_are_used_where_they_are_given(kind):
    layer, input = made(kind)
    name, value = next(iter(layer.named_parameters()))
    other = {name: value.detach() * 0.5 + 0.1}

    def call(parameters, input):
        return torch.func.functional_call(layer, parameters, (input,))

    with torch.no_grad():
        expected = call(other, input)
        torch.testing.assert_close(Graphs().compile(call)(other, input), expected)
        assert not torch.allclose(layer(input), expected)


@layers
def test_changes_within_the_graph_are_seen(kind):
    layer, input = made(kind)
    twin = copy.deepcopy(layer)

    def call(layer, input):
        before = layer(input)
        for parameter in layer.parameters():
            parameter.mul_(0.9)
        return before, layer(input)

    with torch.no_grad():
        expected = call(twin, input)
        torch.testing.assert_close(torch.compile(call, fullgraph=True)(layer, input), expected)
        torch.testing.assert_close(layer(input), expected[1])
    assert not torch.allclose(*expected)


def test_another_part_is_seen():
    layer, input = made("flex")
    run = Graphs().compile(layer)
    with torch.no_grad():
        before = run(input)
        layer.kernel = copy.deepcopy(layer.kernel)
        layer.kernel.output.weight.mul_(0.5)
        expected = copy.deepcopy(layer)(input)
        torch.testing.assert_close(run(input), expected)
    assert not torch.allclose(before, expected)


@layers
def test_within_the_graph_gradients_and_precision_are_what_they_are_there(kind):
    layer, input = made(kind)

    def call(input):
        with torch.no_grad():
            plain = layer(input)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = layer(input)
        return plain, layer(input), rounded

    expected, outputs = call(input), Graphs().compile(call)(input)
    torch.testing.assert_close(outputs[:2], expected[:2])
    assert [each.requires_grad for each in outputs] == [False, True, False]
    assert outputs[2].dtype == expected[2].dtype
    torch.testing.assert_close(outputs[2], expected[2], atol=0.1, rtol=0.1)


@pytest.mark.parametrize("kind", ["flex", "circular"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:, :2], "input must have 3 channels, got 2"),
        (lambda x: x[0], "input must have 4 dimensions"),
        (lambda x: x.double(), "input must have the dtype of the parameters"),
    ],
)
def test_what_does_not_fit_is_refused_in_words(kind, change, message):
    layer, input = made(kind)
    with torch.no_grad(), pytest.raises(Exception, match=message):
        Graphs().compile(layer)(change(input))


def test_threads_share_a_graph():
    layer, input = made("flex")
    graphs = Graphs()
    run = graphs.compile(layer)
    with torch.no_grad():
        expected = run(input)

    def in_thread(_):
        with torch.no_grad():
            return run(input)

    with ThreadPoolExecutor(4) as threads:
        for output in threads.map(in_thread, range(16)):
            torch.testing.assert_close(output, expected)
    assert graphs.count == 1
