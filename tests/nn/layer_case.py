"""What every layer must be able to do; the tests of a layer inherit it."""

from __future__ import annotations

import copy
import io
import math
import pickle
import weakref
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck
from torch.func import functional_call, grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.testing import assert_close

from .layer_tools import Probe, Token, gradients, precise_parameters, reset, size_parameters

CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}

Maps = tuple[tuple[int, ...], ...]


class LayerCase:
    """Tests that hold for every layer; a subclass says how to make it and what it equals.

    The first of ``maps`` serves where one map is enough: there no size is at one of its limits,
    where gradients pass by decree and differ from finite differences.
    """

    channels = 2
    maps: Maps

    def make(self, **factory: Any) -> nn.Module:
        """Return the layer on the ``device`` and of the ``dtype`` in ``factory``."""
        raise NotImplementedError

    def twin(self, layer: nn.Module, input: Tensor) -> Tensor:
        """Return what the layer must return, in training."""
        raise NotImplementedError

    def shown(self, layer: nn.Module) -> str:
        """Return what ``repr`` must hold."""
        raise NotImplementedError

    @pytest.fixture
    def layer(self) -> nn.Module:
        """The layer in float64, away from its special initial values."""
        layer = self.make(dtype=torch.float64)
        self.prepare(layer)
        return layer

    def prepare(self, layer: nn.Module) -> None:
        """Make biases differ from 0."""
        for name, parameter in layer.named_parameters():
            if name.endswith("bias"):
                nn.init.normal_(parameter)

    def input(self, batch: int = 2, number: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
        return torch.randn(batch, self.channels, *self.maps[number], dtype=dtype)

    @property
    def ndim(self) -> int:
        return len(self.maps[0])

    def test_it_equals_its_twin_on_every_map(self, layer):
        for number in range(len(self.maps)):
            input = self.input(number=number).requires_grad_()
            leaves = {"input": input, **dict(layer.named_parameters())}
            output, expected = layer(input), self.twin(layer, input)
            assert_close(output, expected, rtol=1e-9, atol=1e-10)
            cotangent = torch.randn_like(output)
            ours = gradients(output, leaves, cotangent)
            theirs = gradients(expected, leaves, cotangent)
            assert_close(ours, theirs, rtol=1e-8, atol=1e-9)

    def test_float32_is_near_float64(self, layer):
        input = self.input(dtype=torch.float32)
        single = copy.deepcopy(layer).float()
        # The same numbers, so that what differs is the arithmetic.
        double = copy.deepcopy(single).double()
        outputs = []
        for module, x in ((single, input.clone()), (double, input.double())):
            output = module(x.requires_grad_())
            output.square().sum().backward()
            tensors = [output, x.grad, *(p.grad for p in module.parameters())]
            assert all(t.dtype == x.dtype for t in tensors)
            outputs.append([t.detach().double() for t in tensors])
        # Beside large gradients, small ones are allowed their rounding errors.
        floor = 0.01 * max(tensor.norm() for tensor in outputs[1])
        for ours, theirs in zip(*outputs, strict=True):
            assert (ours - theirs).norm() < 1e-4 * theirs.norm().clamp_min(floor)

    def test_first_and_second_derivatives_match_finite_differences(self, layer):
        names = [name for name, _ in layer.named_parameters()]
        values = [parameter.detach() for parameter in layer.parameters()]
        # All parameters in one vector: the check's time is quadratic in the number of operands.
        flat = torch.cat([torch.zeros(0, dtype=torch.float64), *(v.flatten() for v in values)])

        def run(input: Tensor, flat: Tensor) -> Tensor:
            pieces = flat.split([value.numel() for value in values])
            shaped = [p.view_as(v) for p, v in zip(pieces, values, strict=True)]
            return functional_call(layer, dict(zip(names, shaped, strict=True)), (input,))

        operands = (self.input().requires_grad_(), flat.requires_grad_(bool(values)))
        assert gradcheck(run, operands, fast_mode=True, check_undefined_grad=False)
        assert gradgradcheck(run, operands, fast_mode=True, check_undefined_grad=False)

    def test_batches_of_one_and_none(self, layer):
        layer.eval()
        input = self.input(batch=3)
        assert_close(layer(input[1:2]), layer(input)[1:2])
        empty = input[:0].clone().requires_grad_()
        output = layer(empty)
        assert output.shape == (0, *layer(input).shape[1:])
        output.sum().backward()
        assert empty.grad.shape == empty.shape
        for name, parameter in layer.named_parameters():
            assert parameter.grad is not None, name
            assert not parameter.grad.any(), name

    def test_inputs_in_any_memory_layout(self, layer):
        input = self.input()
        expected = layer(input)
        wider = torch.randn(2, 2, *input.shape[1:-1], 3 * input.shape[-1], dtype=input.dtype)
        strided = wider[:, 0, ..., 1::3].copy_(input)
        last = input.movedim(1, -1).contiguous().movedim(-1, 1)
        mirrored = input.transpose(0, -1).contiguous().transpose(0, -1)
        for view in (strided, last, mirrored):
            assert not view.is_contiguous()
            assert_close(layer(view), expected)

    def test_channels_last_is_kept(self, layer):
        # Torch has no such format in 1-D.
        if self.ndim == 1:
            return
        memory_format = CHANNELS_LAST[self.ndim]
        # Torch's own Conv3d keeps it in float32 only.
        layer, input = layer.float(), self.input(dtype=torch.float32)
        assert layer(input).is_contiguous()
        output = layer(input.to(memory_format=memory_format))
        assert output.is_contiguous(memory_format=memory_format)

    def test_autocast_gives_the_dtype_of_a_convolution(self, layer):
        layer = layer.float()
        input = self.input(dtype=torch.float32).requires_grad_()
        expected = layer(input)
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(input)
            assert output.dtype == CONVOLUTIONS[self.ndim](self.channels, 1, 1)(input).dtype
        assert (output - expected).norm() < 0.03 * expected.norm()
        output.float().square().sum().backward()
        for parameter in layer.parameters():
            assert parameter.grad.dtype == torch.float32
            assert parameter.grad.isfinite().all()

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_half_precision_leaves_sizes_in_float32(self, layer, dtype):
        layer = layer.float()
        output_size = layer(self.input(dtype=torch.float32)).shape
        other = self.make(dtype=dtype)
        self.prepare(other)
        for half in (layer.to(dtype), other):
            output = half(self.input(dtype=dtype).requires_grad_())
            assert output.shape == output_size
            assert output.dtype == dtype
            assert output.isfinite().all()
            output.float().sum().backward()
            precise = precise_parameters(half)
            for name, parameter in half.named_parameters():
                assert parameter.dtype == (torch.float32 if name in precise else dtype), name
                assert parameter.grad.dtype == parameter.dtype, name
        assert {p.dtype for p in layer.double().parameters()} <= {torch.float64}

    @pytest.mark.parametrize("way", ["context", "argument"])
    def test_it_can_be_made_on_the_meta_device(self, way):
        with torch.device("meta" if way == "context" else "cpu"):
            layer = self.make(device=None if way == "context" else "meta")
        tensors = [*layer.parameters(), *layer.buffers()]
        assert all(tensor.is_meta for tensor in tensors)
        layer.to_empty(device="cpu")
        for tensor in layer.parameters():
            nn.init.constant_(tensor, math.nan)
        layer.apply(reset)
        fresh = self.make()
        assert repr(layer) == repr(fresh)
        input = self.input(dtype=torch.float32)
        output = layer(input)
        assert output.isfinite().all()
        assert output.shape == fresh(input).shape
        layer.load_state_dict(fresh.state_dict())
        assert_close(layer.eval()(input), fresh.eval()(input))

    def test_copies_are_equal_and_apart(self, layer):
        layer.eval()
        input = self.input().requires_grad_()
        output = layer(input)
        output.sum().backward()
        for copied in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
            assert repr(copied) == repr(layer)
            with torch.no_grad():
                for parameter in copied.parameters():
                    parameter.add_(1)
            assert_close(layer(input), output, rtol=0, atol=0)
            copied.load_state_dict(layer.state_dict())
            assert_close(copied(input), output, rtol=0, atol=0)

    def test_its_state_survives_a_file(self, layer):
        layer.eval()
        input = self.input()
        state, file = layer.state_dict(), io.BytesIO()
        torch.save(state, file)
        file.seek(0)
        self.check_state(layer, input, torch.load(file, weights_only=True))

    def test_its_state_survives_safetensors(self, layer):
        state = layer.eval().state_dict()
        self.check_state(layer, self.input(), safetensors.torch.load(safetensors.torch.save(state)))

    def check_state(self, layer: nn.Module, input: Tensor, state: dict[str, Tensor]) -> None:
        other = self.make(dtype=torch.float64).eval()
        assert list(other.state_dict()) == list(layer.state_dict())
        other.load_state_dict(state)
        assert repr(other) == repr(layer)
        assert_close(other(input), layer(input), rtol=0, atol=0)

    def test_its_state_is_its_parameters(self, layer):
        layer(self.input())
        statistics = {
            f"{name}.{buffer}"
            for name, module in layer.named_modules()
            if isinstance(module, _BatchNorm)
            for buffer, _ in module.named_buffers()
        }
        assert set(layer.state_dict()) - statistics == {n for n, _ in layer.named_parameters()}
        for name, parameter in layer.named_parameters():
            assert parameter.dim() > 0, name
            assert not parameter.is_complex(), name
        assert not any(buffer.is_complex() for buffer in layer.buffers())

    def test_a_forward_leaves_parameters_alone(self, layer):
        before = {n: (p, p._version, p.detach().clone()) for n, p in layer.named_parameters()}
        for mode in (True, False):
            layer.train(mode)(self.input().requires_grad_()).sum().backward()
        after = dict(layer.named_parameters())
        assert after.keys() == before.keys()
        for name, (parameter, version, value) in before.items():
            assert after[name] is parameter, name
            assert parameter._version == version, name
            assert torch.equal(parameter, value), name

    def test_no_graph_outlives_its_output(self, layer):
        token = Token()
        alive = weakref.ref(token)
        probed = {name: Probe.apply(p, token) for name, p in layer.named_parameters()}
        input = Probe.apply(self.input().requires_grad_(), token)
        output = functional_call(layer, probed, (input,))
        del token, probed, input
        assert alive() is not None
        del output
        assert alive() is None

    def test_vmap_over_inputs(self, layer):
        layer.eval()
        inputs = torch.stack([self.input() for _ in range(3)])
        assert_close(vmap(layer)(inputs), torch.stack([layer(input) for input in inputs]))

    def test_functional_gradients(self, layer):
        layer.eval()
        parameters = {n: p.detach() for n, p in layer.named_parameters()}
        inputs = self.input(batch=3).requires_grad_()

        def loss(parameters: dict[str, Tensor], sample: Tensor) -> Tensor:
            return functional_call(layer, parameters, (sample[None],)).square().sum()

        layer(inputs).square().sum().backward()
        expected = {n: p.grad for n, p in layer.named_parameters()}, inputs.grad
        per_sample = grad(loss, argnums=(0, 1))
        samples = inputs.detach()
        by_vmap = vmap(per_sample, in_dims=(None, 0))(parameters, samples)
        one_by_one = [per_sample(parameters, sample) for sample in samples]
        for name in parameters:
            stacked = torch.stack([gradient[name] for gradient, _ in one_by_one])
            assert_close(by_vmap[0][name], stacked)
            assert_close(stacked.sum(dim=0), expected[0][name])
        assert_close(by_vmap[1], expected[1])
        assert_close(torch.stack([gradient for _, gradient in one_by_one]), expected[1])

    def test_training_and_evaluation_agree(self, layer):
        input = self.input()
        expected = layer.eval()(input)
        layer.train()
        # Batch statistics differ, as they must.
        layer.apply(lambda m: m.eval() if isinstance(m, _BatchNorm) else m)
        assert_close(layer(input), expected)
        with torch.no_grad():
            assert_close(layer(input), expected)

    def test_repr_tells_the_size(self, layer):
        assert self.shown(layer) in repr(layer)


class SizedLayerCase(LayerCase):
    """Tests that hold for every layer with size parameters."""

    def test_repr_outlives_a_size_that_became_nan(self, layer):
        for parameter in size_parameters(layer).values():
            parameter.data.fill_(float("nan"))
        assert "=nan" in repr(layer)

    def test_sizes_get_a_gradient(self, layer):
        layer(self.input()).square().sum().backward()
        sizes = size_parameters(layer)
        assert sizes
        for name, parameter in sizes.items():
            assert parameter.grad.all(), name

    def test_a_size_that_is_no_number_is_refused(self, layer):
        for name, parameter in size_parameters(layer).items():
            broken = copy.deepcopy(layer)
            nn.init.constant_(broken.get_parameter(name), math.nan)
            with pytest.raises(ValueError, match=r"NaN.*learning rate"):
                broken(self.input())
            assert parameter.isfinite().all()


class Compiled(LayerCase):
    """Tests of compilation, which takes seconds: for one layer of each kind."""

    def test_compiled_equals_eager(self, layer):
        torch.compiler.reset()
        # No eager forward comes before: sizes must be known once the state is loaded.
        other = self.make(dtype=torch.float64)
        other.load_state_dict(layer.state_dict())
        compiled = torch.compile(other, fullgraph=True, backend="aot_eager")
        input = self.input().requires_grad_()
        outputs = layer(input), compiled(input)
        assert_close(outputs[1], outputs[0])
        cotangent = torch.randn_like(outputs[0])
        wanted, ours = (
            gradients(output, {"input": input, **dict(module.named_parameters())}, cotangent)
            for output, module in zip(outputs, (layer, other), strict=True)
        )
        assert_close(ours, wanted)
        layer.eval()
        other.eval()
        with torch.no_grad():
            input = self.input(batch=3)
            assert_close(compiled(input), layer(input))


class EndsInConv3d:
    """A layer whose output comes from ``torch.nn.Conv3d``."""

    def test_channels_last_is_kept(self):
        """Torch keeps it only where it hands the convolution to oneDNN."""
