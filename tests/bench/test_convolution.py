"""The suite ``convolve``: its grid, its contenders, and what is not tried."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch

from sizeless.bench import convolution, peers
from sizeless.bench.case import MODES, Case
from sizeless.bench.convolution import KEPT, ROLES, Skips, case_of, disagreement, make_run
from sizeless.bench.grid import GRID, QUICK, Point
from sizeless.bench.rows import Row

POINTS = [point for line in GRID for point in line.points()]
SMALL = Point(2, "depthwise", 2, 4, 8, 5)
PLAIN = [name for name in ROLES if name not in peers.PACKAGES and name != convolution.LIMIT]


def span(ndim: int, name: str) -> tuple[int, int]:
    values = [getattr(point, name) for point in POINTS if point.ndim == ndim]
    return min(values), max(values)


def test_the_grid_is_as_large_as_it_must_be() -> None:
    names = [(point.name, mode) for point, mode in itertools.product(POINTS, MODES)]
    assert len(names) == len(set(names)) >= 150
    kinds = {(point.ndim, point.kind) for point in POINTS}
    assert kinds == set(itertools.product((1, 2, 3), ("dense", "grouped", "depthwise")))
    assert (span(1, "side"), span(1, "kernel")) == ((256, 65536), (3, 65535))
    assert (span(2, "side"), span(2, "kernel")) == ((14, 224), (3, 63))
    assert (span(3, "side"), span(3, "kernel")) == ((16, 48), (3, 21))


@pytest.mark.parametrize("line", [*GRID, *QUICK], ids=str)
def test_lines_go_from_small_kernels_to_large_ones(line: Any) -> None:
    assert list(line.kernels) == sorted(set(line.kernels))
    assert all(kernel % 2 == 1 and kernel <= line.side for kernel in line.kernels)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("kind", "pairs"), [("dense", 16), ("grouped", 4), ("depthwise", 4)])
def test_work_is_counted_tap_by_tap(kind: str, pairs: int, mode: str) -> None:
    point = Point(2, kind, 3, 4, 6, 5)
    inside = sum(0 <= p + tap - 2 < 6 for p in range(6) for tap in range(5)) ** 2
    times, maps, weights = (3, 5, 3) if mode == "training" else (1, 2, 1)
    work = point.work(mode)
    assert work.flops == 2 * times * 3 * pairs * inside
    assert work.bytes == 4 * (maps * 3 * 4 * 36 + weights * pairs * 25)
    half = point.lengths[0] * (point.lengths[1] // 2 + 1)
    assert work.mixing == 6 * times * 3 * pairs * half


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize(
    ("ndim", "kind", "layout"),
    [
        *((n, k, "contiguous") for n in (1, 2, 3) for k in ("dense", "grouped", "depthwise")),
        (2, "depthwise", "channels_last"),
        (3, "dense", "channels_last"),
    ],
)
def test_contenders_agree_with_torch(name: str, ndim: int, kind: str, layout: str) -> None:
    assert disagreement.__wrapped__(name, ndim, kind, layout, "cpu") == ""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", peers.PACKAGES)
@pytest.mark.parametrize(("ndim", "kind"), [(1, "dense"), (2, "depthwise"), (3, "grouped")])
def test_packages_agree_with_torch(name: str, ndim: int, kind: str) -> None:
    pytest.importorskip(peers.PACKAGES[name])
    if peers.reason_against(name, ndim, 1 if kind == "dense" else 2):
        pytest.skip("no such convolution")
    assert disagreement.__wrapped__(name, ndim, kind, "contiguous", "cpu") == ""


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("mode", MODES)
def test_runs_compute_all_that_is_asked_for(name: str, mode: str) -> None:
    result: Any = make_run(SMALL, name, mode, "cpu")()
    if mode == "forward":
        assert result.shape == SMALL.input_shape
        assert not result.requires_grad
    else:
        assert [tuple(g.shape) for g in result] == [SMALL.input_shape, SMALL.weight_shape]


@pytest.mark.parametrize("mode", MODES)
def test_transforms_of_a_step(mode: str) -> None:
    made = convolution.transforms(SMALL, mode, "cpu")
    shapes = [tuple(t.shape) for t in made.signals], [tuple(t.shape[:2]) for t in made.spectra]
    maps, weight = SMALL.input_shape, SMALL.weight_shape
    if mode == "forward":
        assert shapes == ([maps, weight], [maps[:2]])
    else:
        assert shapes == ([maps, weight, maps], [maps[:2], maps[:2], weight[:2]])


def statuses(case: Case) -> dict[str, str]:
    return {contender.name: contender.status for contender in case.contenders}


def test_statuses_are_honest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "installed", lambda name: name != "torch-fftconv")
    monkeypatch.setattr(convolution, "disagreement", lambda *_: "")
    found = case_of(SMALL, "forward", "cpu")
    assert statuses(found)["torch-fftconv"] == "not installed"
    assert statuses(found)["julius"] == "n/a"
    assert statuses(found)["DCLS"] == ""
    assert found.contenders[0].name == "sizeless"
    assert all((c.make is None) == bool(c.status) for c in found.contenders)
    last = replace(SMALL, layout="channels_last")
    assert statuses(case_of(last, "forward", "cpu"))[KEPT] == "n/a"
    large = Point(1, "dense", 64, 512, 65536, 3)
    assert statuses(case_of(large, "forward", "cpu"))["fft-conv-pytorch"] == "skipped"


def test_what_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "disagreement", disagreement.__wrapped__)
    wrong = {"torch": lambda *a: convolution._torch(*a) * 1.01, "textbook fft": lambda *_: 1 / 0}
    for name, function in wrong.items():
        monkeypatch.setitem(convolution.FUNCTIONS, name, function)
    case = case_of(SMALL, "forward", "cpu", ("torch", "textbook fft"))
    assert statuses(case) == {"torch": "wrong", "textbook fft": "wrong"}
    assert case.contenders[0].note.startswith("output differs from torch's by 0.01")
    assert case.contenders[1].note.startswith("ZeroDivisionError")


def test_a_lost_gradient_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        convolution.FUNCTIONS, "torch", lambda x, w, g: convolution._torch(x, w.detach() + 0 * w, g)
    )
    assert "gradient 2" in disagreement.__wrapped__("torch", 2, "dense", "contiguous", "cpu")


def row(kernel: int, contender: str, milliseconds: float, suite: str = "convolve") -> Row:
    status = "ok" if contender == "sizeless" else "once"
    name, shape = f"2-D dense 1x8x64x64 k{kernel}", "1x8x64x64"
    text = suite, "2-D dense", name, "training", shape, "contiguous", kernel, contender
    return Row(*text, ROLES[contender], status, median_ms=milliseconds)


def tried(skips: Skips, kernel: int, **changes: Any) -> dict[str, bool]:
    point = Point(2, "dense", 1, 8, 64, kernel)
    case = replace(case_of(point, "training", "cpu", PLAIN), **changes)
    return {c.name: c.make is not None for c in skips.apply(case).contenders}


def test_what_is_absurd_and_long_is_not_tried_with_larger_kernels() -> None:
    rows = [row(3, "sizeless", 10), row(3, "torch", 80), row(3, "textbook fft", 200)]
    skips = Skips()
    assert all(tried(skips, 15).values())
    skips.learn(rows)
    assert tried(skips, 5)["torch"], "22 times slower"
    assert not tried(skips, 15)["torch"], "200 times slower, 2 seconds"
    assert tried(skips, 15)["textbook fft"], "does not grow"
    assert tried(skips, 15, mode="forward")["torch"]
    assert tried(skips, 15, layout="channels_last")["torch"]
    assert tried(skips, 15, suite="layers")["torch"]
    quick = Skips([row(3, "sizeless", 0.5), row(3, "torch", 4)])
    assert tried(quick, 15)["torch"], "200 times slower, but soon done"
    assert tried(Skips([row(3, "sizeless", 10, "layers"), row(3, "torch", 80, "layers")]), 15)[
        "torch"
    ]


def test_skipped_contenders_say_why() -> None:
    skips = Skips([row(3, "sizeless", 10), row(3, "torch", 80)])
    case = skips.apply(case_of(Point(2, "dense", 1, 8, 64, 15), "training", "cpu", ("torch",)))
    assert case.contenders[0].status == "skipped"
    assert case.contenders[0].note == "8 times slower than the best at k=3, and growing"


def test_workspace_of_packages() -> None:
    weight, points = (8, 4, 5, 5), 100
    assert peers.workspace("DCLS", 2, weight, points) == 4 * 5 * 32 * 25 * 16
    assert peers.workspace("julius", 2, weight, points) == 8 * 100 * (2 * 8 + 32) * 3
    assert peers.workspace("torch-fftconv", 2, weight, points) == 8 * 2 * 32 * 100
    assert peers.workspace("torch-fftconv", 2, (8, 1, 5, 5), points) == 8 * 100 * (16 + 8) * 3


def test_dcls_is_as_wide_as_the_kernel() -> None:
    pytest.importorskip("DCLS")
    layer = peers.dcls_layer((4, 2, 9), 2, "cpu")
    assert layer(torch.randn(1, 4, 20)).shape == (1, 4, 20)
    assert peers.dcls_kernel(layer).shape == (4, 2, 9)
