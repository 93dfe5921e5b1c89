"""Libraries of others: found, chosen, compared with ours, and left out where they fail."""

from __future__ import annotations

import json
import threading
import warnings

import pytest
import torch
from torch.nn import functional as F

from sizeless.functional import convolve, convolve_factored, naive, plan, plan_table, tuning
from sizeless.functional import use_method as forced
from sizeless.functional.backends import Backend, register_backend, registry, use_backends
from sizeless.functional.plans import Plan, Step, forget_plans

CAUSAL = {"padding": "same", "causal": True, "groups": 4}
CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


class Textbook(Backend):
    """All convolutions on a CPU, by torch; it counts what it is asked."""

    name = "textbook"
    device_types = ("cpu",)

    def __init__(self, name="textbook"):
        self.name, self.seen = name, []

    def supports(self, call):
        return True

    def run(self, input, weight, call):
        self.seen.append(call)
        geometry = call.geometry
        padded = F.pad(input, [n for pair in reversed(geometry.amounts) for n in pair])
        options = geometry.stride, 0, geometry.dilation, geometry.groups
        return CONVOLUTIONS[geometry.ndim](padded, weight, None, *options)


class CausalOnly(Textbook):
    def supports(self, call):
        return call.is_causal and call.is_depthwise


@pytest.fixture(autouse=True)
def _fresh(tmp_path, monkeypatch):
    """No back ends but those of the test, and no plans from elsewhere."""
    monkeypatch.setenv("SIZELESS_CACHE", str(tmp_path))
    monkeypatch.setattr(registry, "entry_points", lambda **_: [])
    forget_all()
    yield
    monkeypatch.undo()
    forget_all()


def forget_all():
    registry.forget_backends()
    plan_table.forget()
    forget_plans()


def registered(backend=None):
    backend = Textbook() if backend is None else backend
    register_backend(backend)
    return backend


def operands(length=33, taps=15, batch=2, channels=4, **options):
    options = {"requires_grad": True} | options
    input = torch.randn(batch, channels, length, **options)
    weight = torch.randn(channels, 1, taps, **options)
    return input, weight, torch.randn(channels, **options)


def pretend(monkeypatch, *fast):
    """Let these pairs of products and steps seem fast, and return what is clocked."""
    clocked = []

    def clock(_run, products, step, _device):
        clocked.append((products[0], step.method))
        return 1.0 if (products[0], step.method) in fast else 5.0

    monkeypatch.setattr("sizeless.functional.measured._clock", clock)
    return clocked


def test_nothing_is_taken_that_was_neither_measured_nor_forced():
    backend, tensors = registered(), operands()
    before = plan(tensors[0], tensors[1], **CAUSAL)
    convolve(*tensors, **CAUSAL).sum().backward()
    assert backend.seen == []
    assert "textbook" not in str(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("sizes", "options"),
    [
        ({}, CAUSAL),
        ({"length": 1, "taps": 4}, CAUSAL),
        ({"batch": 1, "length": 7, "taps": 1}, CAUSAL),
        ({"batch": 0}, CAUSAL),
        ({"length": 40, "taps": 8}, {"padding": "same", "groups": 4}),
        ({"length": 40, "taps": 5}, {"padding": 3, "stride": 2, "dilation": 2, "groups": 4}),
        ({"length": 20, "taps": 5}, {"padding": 2, "padding_mode": "reflect", "groups": 4}),
    ],
)
def test_a_forced_one_gives_the_same_as_the_slow_twin(dtype, sizes, options):
    backend, tensors = registered(), operands(**sizes, dtype=dtype)
    with forced("textbook"):
        output = convolve(*tensors, **options)
        probe = torch.randn_like(output)
        gradients = torch.autograd.grad(output, tensors, probe)
        assert len(backend.seen) == (2 if len(tensors[0]) else 0)
        with torch.no_grad():
            torch.testing.assert_close(convolve(*tensors, **options), output)
    expected = naive.convolve(*tensors, **options)
    twins = torch.autograd.grad(expected, tensors, probe)
    bounds = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {}
    bounds = bounds or {"rtol": 1e-4, "atol": 1e-5}
    for mine, theirs in zip((output, *gradients), (expected, *twins), strict=True):
        torch.testing.assert_close(mine, theirs, **bounds)


@pytest.mark.parametrize("shape", [(2, 3, 6, 5), (1, 2, 4, 3, 5)])
def test_maps_and_volumes_keep_their_layout(shape):
    backend = registered()
    layout = torch.channels_last if len(shape) == 4 else torch.channels_last_3d
    input = torch.randn(shape).contiguous(memory_format=layout)
    weight = torch.randn(4, shape[1], *[3] * (len(shape) - 2))
    output = convolve(input, weight, padding="same", method="textbook")
    assert backend.seen
    assert output.is_contiguous(memory_format=layout)
    torch.testing.assert_close(output, naive.convolve(input, weight, padding="same"))
    part = torch.randn(*shape[:-1], 2 * shape[-1])[..., ::2]
    mine = convolve(part, weight, padding="same", method="textbook")
    torch.testing.assert_close(mine, naive.convolve(part, weight, padding="same"))


def test_derivatives_of_all_orders_are_right():
    backend = registered()
    tensors = operands(length=6, taps=3, batch=1, dtype=torch.float64)

    def run(*tensors):
        return convolve(*tensors, **CAUSAL, method="textbook")

    assert torch.autograd.gradcheck(run, tensors)
    assert torch.autograd.gradgradcheck(run, tensors)
    assert backend.seen


@pytest.mark.parametrize("frozen", [0, 1])
def test_one_gradient_alone_is_ours(frozen):
    backend, tensors = registered(), list(operands())
    tensors[frozen].requires_grad_(False)
    convolve(*tensors, **CAUSAL, method="textbook").sum().backward()
    assert len(backend.seen) == 1
    twin = tensors[1 - frozen].detach().requires_grad_()
    others = [part.detach() for part in tensors]
    others[1 - frozen] = twin
    naive.convolve(*others, **CAUSAL).sum().backward()
    torch.testing.assert_close(tensors[1 - frozen].grad, twin.grad, rtol=1e-4, atol=1e-5)


def test_gradients_are_ours_where_it_has_none():
    class Forward(Textbook):
        is_differentiable = False

        def run(self, input, weight, call):
            return super().run(input.detach(), weight.detach(), call)

    registered(Forward())
    tensors = operands()
    with forced("textbook"):
        assert plan(tensors[0], tensors[1], **CAUSAL).output == Step("textbook")
        assert plan(tensors[0], tensors[1], **CAUSAL).weight_gradient.method != "textbook"
        mine = torch.autograd.grad(convolve(*tensors, **CAUSAL).sum(), tensors)
    theirs = torch.autograd.grad(naive.convolve(*tensors, **CAUSAL).sum(), tensors)
    for one, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_what_it_does_not_support_is_ours():
    backend = registered(CausalOnly())
    input, weight, bias = operands()
    with forced("textbook"):
        for options in ({"groups": 4, "padding": "same"}, CAUSAL | {"stride": 2, "causal": False}):
            expected = plan(input, weight, **options, method="auto")
            assert "textbook" not in str(expected)
            output = convolve(input, weight, bias, **options)
            wanted = naive.convolve(input, weight, bias, **options)
            torch.testing.assert_close(output, wanted, rtol=1e-4, atol=1e-5)
        assert backend.seen == []
        convolve(input, weight, bias, **CAUSAL)
        assert len(backend.seen) == 1


def test_kernels_of_shared_functions_are_rendered_for_it():
    backend = registered()
    input, coefficients, basis = torch.randn(2, 3, 20), torch.randn(4, 3, 5), torch.randn(5, 7)
    output = convolve_factored(input, coefficients, basis, padding="same", method="textbook")
    weight = torch.tensordot(coefficients, basis, dims=1)
    torch.testing.assert_close(
        output, naive.convolve(input, weight, padding="same"), rtol=1e-4, atol=1e-5
    )
    assert len(backend.seen) == 1


def test_autocast_decides_the_dtype_that_it_sees():
    backend, tensors = registered(), operands()
    with torch.autocast("cpu", torch.bfloat16), forced("textbook"):
        output = convolve(*tensors, **CAUSAL)
    output.sum().backward()
    assert output.dtype == torch.bfloat16
    assert {call.dtype for call in backend.seen} == {torch.bfloat16}
    assert tensors[1].grad.dtype == torch.float32


def test_the_fastest_is_measured_followed_and_kept(monkeypatch, tmp_path):
    backend, (input, weight, _) = registered(), operands()
    own = plan(input, weight, **CAUSAL)
    clocked = pretend(monkeypatch, ("output", "textbook"))
    with tuning():
        convolve(input, weight, **CAUSAL).sum().backward()
        assert ("input_gradient", "textbook") in clocked
        clocked.clear()
        convolve(input, weight, **CAUSAL)
        assert [pair for pair in clocked if pair[1] in ("auto", "textbook")] == []
    chosen = Plan(Step("textbook"), own.input_gradient, own.weight_gradient)
    assert plan(input, weight, **CAUSAL) == chosen
    (plans,) = json.loads((tmp_path / "plans.json").read_text()).values()
    (lines,) = (lines for key, lines in plans.items() if key.endswith(" float32, textbook"))
    assert lines == ["textbook", "auto", "auto"]
    plan_table.forget()
    forget_plans()
    backend.seen.clear()
    convolve(input, weight, **CAUSAL).sum().backward()
    assert len(backend.seen) == 1
    assert "textbook" not in str(plan(input.double(), weight.double(), **CAUSAL))


def test_both_gradients_are_its_own_where_it_is_faster(monkeypatch):
    backend, (input, weight, _) = registered(), operands()
    pretend(monkeypatch, ("input_gradient", "textbook"))
    with tuning():
        convolve(input, weight, **CAUSAL)
    shown = plan(input, weight, **CAUSAL)
    assert shown.input_gradient == shown.weight_gradient == Step("textbook")
    assert shown.output.method != "textbook"
    convolve(input, weight, **CAUSAL).sum().backward()
    assert len(backend.seen) == 1


def test_ours_stays_where_nothing_is_clearly_faster(monkeypatch):
    registered()
    input, weight, _ = operands()
    pretend(monkeypatch)
    with tuning():
        convolve(input, weight, **CAUSAL)
    assert "textbook" not in str(plan(input, weight, **CAUSAL))


def test_a_really_measured_contest_gives_the_same(tmp_path):
    backend, tensors = registered(), operands(taps=3)
    with tuning():
        output = convolve(*tensors, **CAUSAL)
    assert backend.seen
    assert "float32, textbook" in (tmp_path / "plans.json").read_text()
    expected = naive.convolve(*tensors, **CAUSAL)
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)


def test_measurements_of_one_that_went_away_or_changed_are_not_followed(monkeypatch):
    backend, (input, weight, _) = registered(), operands()
    pretend(monkeypatch, ("output", "textbook"), ("input_gradient", "textbook"))
    own = plan(input, weight, **CAUSAL)
    with tuning():
        convolve(input, weight, **CAUSAL)
    assert plan(input, weight, **CAUSAL) == Plan(*[Step("textbook")] * 3)
    registry.forget_backends()
    assert plan(input, weight, **CAUSAL) == own
    convolve(input, weight, **CAUSAL).sum().backward()
    newer = registered()
    newer.version = "2.0"
    assert plan(input, weight, **CAUSAL) == own
    registered(backend)
    assert plan(input, weight, **CAUSAL).output == Step("textbook")
    registered(Textbook("other"))
    assert plan(input, weight, **CAUSAL) == own


def test_short_ways_do_not_pass_it_by(monkeypatch):
    input, weight = torch.randn(2, 4, 9, 8), torch.randn(4, 1, 3, 3)
    options = {"padding": 1, "groups": 4}
    convolve(input, weight, **options)
    backend = registered()
    pretend(monkeypatch, ("output", "textbook"))
    with tuning():
        convolve(input, weight, **options)
    with use_backends():
        convolve(input, weight, **options)
        backend.seen.clear()
        convolve(input, weight, **options)
        assert backend.seen == []
    convolve(input, weight, **options)
    assert len(backend.seen) == 1


def test_compiled_graphs_take_it_by_name_alone():
    backend, (input, weight, bias) = registered(), operands()

    def run(input, weight):
        return convolve(input, weight, bias, **CAUSAL)

    expected = run(input, weight)
    assert torch.compile(run, fullgraph=True)(input, weight).shape == expected.shape
    assert backend.seen == []
    torch.compiler.reset()
    with forced("textbook"):
        output = torch.compile(run, fullgraph=True)(input, weight)
        assert len(backend.seen) == 1
        torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
        for mine, theirs in zip(
            torch.autograd.grad(output.sin().sum(), (input, weight)),
            torch.autograd.grad(expected.sin().sum(), (input, weight)),
            strict=True,
        ):
            torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4)
    torch.compiler.reset()


def test_transformations_of_functions_see_our_own():
    registered()
    input, weight, _ = operands(length=9, taps=3, dtype=torch.float64, requires_grad=False)
    many = torch.stack([weight, weight.flip(-1)])

    def loss(weight, input):
        return convolve(input, weight, **CAUSAL).sin().sum()

    def textbook(weight, input):
        return naive.convolve(input, weight, **CAUSAL).sin().sum()

    with forced("textbook"):
        first = torch.func.vmap(torch.func.grad(loss), (0, None))(many, input)
        second = torch.func.vmap(loss, (None, 0))(weight, input.unsqueeze(1))
        third = torch.func.jacrev(torch.func.grad(loss))(weight, input)
    wanted = torch.stack([torch.func.grad(textbook)(one, input) for one in many])
    torch.testing.assert_close(first, wanted)
    torch.testing.assert_close(second.sum(), textbook(weight, input))
    torch.testing.assert_close(third, torch.func.jacrev(torch.func.grad(textbook))(weight, input))


def test_nothing_that_may_vary_runs_under_deterministic_algorithms():
    backend, tensors = registered(), operands()
    torch.use_deterministic_algorithms(True)
    try:
        convolve(*tensors, **CAUSAL, method="textbook")
    finally:
        torch.use_deterministic_algorithms(False)
    assert backend.seen == []


def test_threads_share_what_fails_and_warn_once(monkeypatch):
    class Mirrored(Textbook):
        def run(self, input, weight, call):
            return super().run(input, weight.flip(-1), call)

    registered(Mirrored())
    tensors = operands(requires_grad=False)
    expected = naive.convolve(*tensors, **CAUSAL)
    said, results, start = [], [], threading.Barrier(8)
    monkeypatch.setattr(registry.warnings, "warn", lambda text, **_: said.append(text))

    def run():
        start.wait()
        results.append(convolve(*tensors, **CAUSAL, method="textbook"))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(said) == 1
    assert len(results) == 8
    for result in results:
        torch.testing.assert_close(result, expected, rtol=1e-4, atol=1e-5)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        convolve(*tensors, **CAUSAL, method="textbook")
