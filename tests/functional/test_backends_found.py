"""Back ends that are found, refused, switched off or dropped, and those of the package."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

from sizeless.functional import convolve, naive, plan, use_method
from sizeless.functional.backends import Backend, Call, register_backend, registry, use_backends
from sizeless.functional.backends.vendors import VENDORS, CausalConv1d, CudnnDirect, CudnnFFT
from sizeless.functional.geometry import Geometry

OPTIONS = {"padding": "same", "groups": 3}


class Direct(Backend):
    """Convolutions of sequences on a CPU, changed by a function of its output."""

    name, device_types = "other", ("cpu",)

    def __init__(self, change=lambda output: output):
        self.change, self.runs = change, 0

    def supports(self, call):
        return call.geometry.ndim == 1

    def run(self, input, weight, call):
        self.runs += 1
        padded = F.pad(input, call.geometry.amounts[0])
        return self.change(F.conv1d(padded, weight, groups=call.geometry.groups))


def pretend_points(monkeypatch, *points):
    """Let these be the entry points, and count how often they are looked for."""
    looked = []

    def entry_points(group):
        looked.append(group)
        return points

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return looked


@pytest.fixture(autouse=True)
def _fresh(monkeypatch):
    pretend_points(monkeypatch)
    registry.forget_backends()
    yield
    monkeypatch.undo()
    registry.forget_backends()


def operands(**options):
    shapes = (2, 3, 20), (3, 1, 6)
    return [torch.randn(shape, requires_grad=True, **options) for shape in shapes]


def run(method="auto"):
    tensors = operands()
    output = convolve(*tensors, **OPTIONS, method=method)
    torch.testing.assert_close(output, naive.convolve(*tensors, **OPTIONS), rtol=1e-4, atol=1e-5)
    return output


def point(name, load):
    return SimpleNamespace(name=name, load=load)


def wrong(output):
    """The output with another gradient."""
    return output + 0.5 * (output - output.detach())


@pytest.mark.parametrize("loaded", [Direct, Direct()], ids=["class", "instance"])
def test_packages_offer_them_by_entry_points_at_first_use(loaded, monkeypatch):
    looked = pretend_points(monkeypatch, point("other", lambda: loaded))
    with use_method("direct"):
        run()
    assert looked == []
    run()
    run()
    assert looked == ["sizeless.backends"]
    with use_method("other"):
        assert plan(*operands(), **OPTIONS).output.method == "other"
        run()


@pytest.mark.parametrize("loaded", [None, int, "text"])
def test_a_broken_entry_point_warns_once_and_is_ignored(loaded, monkeypatch):
    def load():
        if loaded is None:
            raise ImportError("no library")
        return loaded

    pretend_points(monkeypatch, point("broken", load), point("other", lambda: Direct))
    with pytest.warns(UserWarning, match="back end 'broken' is ignored"):
        run()
    run()
    with use_method("other"):
        run()


def test_one_that_cannot_say_whether_it_is_here_is_not(monkeypatch):
    backend = Direct()
    monkeypatch.setattr(backend, "available", lambda: 1 / 0)
    register_backend(backend)
    with pytest.warns(UserWarning, match="back end 'other' is ignored: it fails with ZeroDiv"):
        run()
    run()
    with pytest.raises(ValueError, match="got 'other'"):
        run("other")


@pytest.mark.parametrize("failing", ["supports", "run"])
def test_one_that_raises_is_dropped_with_one_warning(failing, monkeypatch):
    backend = Direct()

    def fail(*_):
        raise OSError("no such symbol")

    monkeypatch.setattr(backend, failing, fail)
    register_backend(backend)
    with pytest.warns(UserWarning, match="back end 'other'.*no such symbol"):
        run("other")
    with use_method("other"):
        run().sum().backward()


@pytest.mark.parametrize(
    "change",
    [
        lambda output: output * 1.01,
        lambda output: output.roll(1, -1),
        lambda output: output[..., 1:],
        lambda output: output * torch.nan,
        lambda output: output.to(torch.bfloat16),
    ],
    ids=["scaled", "shifted", "shorter", "nan", "coarse"],
)
def test_another_output_than_ours_drops_it(change):
    backend = Direct(change)
    register_backend(backend)
    with pytest.warns(UserWarning, match="differs from sizeless in the output"):
        run("other")
    run("other")
    assert backend.runs == 1


def test_another_gradient_than_ours_drops_it():
    register_backend(Direct(wrong))
    tensors = operands()
    output = convolve(*tensors, **OPTIONS, method="other")
    probe = torch.randn_like(output)
    with pytest.warns(UserWarning, match="differs from sizeless in the gradients"):
        mine = torch.autograd.grad(output, tensors, probe)
    theirs = torch.autograd.grad(naive.convolve(*tensors, **OPTIONS), tensors, probe)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_it_is_compared_once_for_each_kind_of_call(monkeypatch):
    compared = []
    ours = "sizeless.functional.backends.products._difference"
    monkeypatch.setattr(ours, lambda *_: compared.append(1) or 0.0)
    register_backend(Direct())
    for length in (20, 21, 30, 32, 33):
        convolve(torch.randn(2, 3, length), operands()[1], **OPTIONS, method="other")
    assert len(compared) == 3  # Up to 31 samples, 32, and more.


def test_values_that_are_not_finite_prove_nothing():
    backend = Direct(wrong)
    register_backend(backend)
    tensors = operands()
    output = convolve(*tensors, **OPTIONS, method="other")
    grad = torch.full_like(output, torch.inf)
    torch.autograd.grad(output, tensors, grad, retain_graph=True)
    with pytest.warns(UserWarning, match="differs from sizeless in the gradients"):
        torch.autograd.grad(output, tensors, torch.ones_like(output))


def test_a_full_memory_is_no_fault_of_its_own():
    def fail(output):
        raise torch.OutOfMemoryError("full")

    backend = Direct(fail)
    register_backend(backend)
    with pytest.raises(torch.OutOfMemoryError):
        run("other")
    backend.change = lambda output: output
    run("other")


def test_blocks_switch_them_off():
    backend = Direct()
    register_backend(backend)
    with use_backends():
        run("other")
        assert plan(*operands(), **OPTIONS, method="other").output.method != "other"
        assert backend.runs == 0
        with use_backends("other"):
            run("other")
    run("other")
    assert backend.runs == 2


def test_the_environment_switches_them_off(monkeypatch):
    backend = Direct()
    looked = pretend_points(monkeypatch)
    monkeypatch.setenv("SIZELESS_BACKENDS", "none")
    register_backend(backend)
    run()
    with pytest.raises(ValueError, match=r"here \(none\), got 'other'"):
        run("other")
    assert looked == []
    monkeypatch.setenv("SIZELESS_BACKENDS", "cudnn, other")
    registry.forget_backends()
    register_backend(backend)
    run("other")
    assert backend.runs == 1
    monkeypatch.setenv("SIZELESS_BACKENDS", "cudnn,misspelt")
    registry.forget_backends()
    register_backend(backend)
    with pytest.warns(UserWarning, match="'misspelt' is ignored: SIZELESS_BACKENDS names it"):
        run()
    with pytest.raises(ValueError, match="got 'other'"):
        run("other")


def test_the_environment_can_force_one(monkeypatch):
    backend = Direct()
    register_backend(backend)
    monkeypatch.setenv("SIZELESS_METHOD", "other")
    run()
    assert backend.runs == 1


@pytest.mark.parametrize("manager", [use_method, use_backends])
def test_a_name_that_is_not_here_is_refused(manager):
    with pytest.raises(ValueError, match="the name of a back end"), manager("none"):
        pass


@pytest.mark.parametrize(
    ("name", "error"), [("fft", ValueError), ("", ValueError), ("Two words", ValueError)]
)
def test_names_that_mean_something_else_are_refused(name, error):
    backend = Direct()
    backend.name = name
    with pytest.raises(error, match="backend must have a name"):
        register_backend(backend)
    with pytest.raises(TypeError, match="backend must be an instance"):
        register_backend(Direct)


def test_those_of_the_package_are_not_here_without_their_libraries():
    here = [vendor().available() for vendor in VENDORS]
    if not torch.cuda.is_available():
        assert here == [False, False, False]


def stand_ins():
    """The libraries' operations from the sums in their documentation."""

    def mirrored(x, weight):
        taps = weight.shape[1]
        return F.conv1d(F.pad(x, (taps - 1, 0)), weight.flip(1).unsqueeze(1), groups=len(weight))

    def plain(x, weight, bias=None):
        return mirrored(x, weight.flip(1))

    ops = ModuleType("cudnn.ops")
    ops.fft_causal_conv1d, ops.causal_conv1d = mirrored, plain
    library = ModuleType("causal_conv1d")
    library.causal_conv1d_fn = plain
    return {"cudnn.ops": ops, "causal_conv1d": library}


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "causal": True},
        {"padding": "same"},
        {"padding": 0},
        {"padding": 1},
        {"padding": 5},
    ],
    ids=str,
)
@pytest.mark.parametrize("taps", [2, 3, 4])
def test_calls_reach_the_libraries_in_their_conventions(vendor, options, taps, monkeypatch):
    for name, module in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    backend, runs = vendor(), []
    backend.device_types = ("cpu",)
    monkeypatch.setattr(backend, "available", lambda: True)
    monkeypatch.setattr(
        backend, "run", lambda *args: runs.append(1) or type(backend).run(backend, *args)
    )
    register_backend(backend)
    tensors = torch.randn(2, 3, 9, requires_grad=True), torch.randn(3, 1, taps, requires_grad=True)
    output = convolve(*tensors, groups=3, **options, method=backend.name)
    probe = torch.randn_like(output)
    mine = torch.autograd.grad(output, tensors, probe)
    expected = naive.convolve(*tensors, groups=3, **options)
    assert len(runs) == 2
    theirs = torch.autograd.grad(expected, tensors, probe)
    for one, other in zip((output, *mine), (expected, *theirs), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def call(taps=4, channels=8, dtype=torch.float32, **changes):
    geometry = Geometry(
        2, channels, channels, channels, (64,), (taps,), (1,), (1,), ((taps - 1, 0),)
    )
    return Call(geometry._replace(**changes), dtype, torch.device("cuda"))


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (call(), ["cudnn", "cudnn-direct", "causal-conv1d"]),
        (call(taps=5), ["cudnn", "cudnn-direct"]),
        (call(taps=1), ["cudnn"]),
        (call(taps=257), ["cudnn"]),
        (call(dtype=torch.bfloat16), ["cudnn", "cudnn-direct", "causal-conv1d"]),
        (call(dtype=torch.float64), ["cudnn"]),
        (call(stride=(2,)), []),
        (call(dilation=(2,)), []),
        (call(groups=4), []),
        (call(out_channels=16), []),
        (call(size=(2**23 + 1,), channels=1), ["cudnn-direct", "causal-conv1d"]),
        (call(size=(2**23,), channels=256), []),
        (call(size=(4, 4), kernel=(2, 2), stride=(1, 1), dilation=(1, 1)), []),
    ],
)
def test_they_are_asked_for_what_they_document(asked, expected):
    assert [vendor.name for vendor in VENDORS if vendor().supports(asked)] == expected


@pytest.mark.parametrize(
    ("version", "bindings", "expected"),
    [
        (92600, ("fft_causal_conv1d_forward", "causal_conv1d_forward"), (True, True)),
        (92200, ("fft_causal_conv1d_forward", "causal_conv1d_forward"), (False, True)),
        (92600, ("causal_conv1d_forward",), (False, True)),
        (91000, (), (False, False)),
    ],
)
def test_older_versions_of_cudnn_are_left_alone(version, bindings, expected):
    library = SimpleNamespace(__version__="1.32.0", backend_version=lambda: version)
    for name in bindings:
        setattr(library, name, None)
    assert tuple(vendor().accepts(library) for vendor in (CudnnFFT, CudnnDirect)) == expected


def test_versions_tell_measurements_apart():
    library = SimpleNamespace(__version__="1.32.0", backend_version=lambda: 92600)
    backends = CudnnDirect(), CausalConv1d()
    for backend in backends:
        backend.accepts(library)
    assert [backend.version for backend in backends] == ["1.32.0/92600", "1.32.0"]


@pytest.mark.parametrize("vendor", VENDORS, ids=lambda vendor: vendor.name)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("length", "taps"), [(1000, 4), (4096, 128), (5000, 3000)])
@pytest.mark.parametrize("causal", [True, False])
def test_real_ones_give_what_ours_give(vendor, dtype, length, taps, causal):
    pytest.importorskip(vendor.library)
    if not torch.cuda.is_available() or not vendor().available():
        pytest.skip("needs its device")
    options = {"device": "cuda", "dtype": dtype, "requires_grad": True}
    tensors = torch.randn(2, 16, length, **options), torch.randn(16, 1, taps, **options)
    placed = {"padding": "same", "causal": causal, "groups": 16}
    if vendor.name not in str(plan(*tensors, **placed, method=vendor.name)):
        pytest.skip("not among what it supports")
    mine = convolve(*tensors, **placed, method=vendor.name)
    probe = torch.randn_like(mine)
    gradients = torch.autograd.grad(mine, tensors, probe)
    assert vendor.name not in registry._registry.dropped
    wide = [part.detach().double().requires_grad_() for part in tensors]
    expected = convolve(*wide, **placed, method="fft")
    twins = torch.autograd.grad(expected, wide, probe.double())
    bound = {torch.float32: 1e-4, torch.float16: 5e-3, torch.bfloat16: 3e-2}[dtype]
    for one, other in zip((mine, *gradients), (expected, *twins), strict=True):
        assert (one - other).abs().max() <= bound * other.abs().max()
