"""Plans that are measured, and the table that keeps them."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from sizeless.functional import convolve, plan, plan_table, spectral, tuning
from sizeless.functional import tuning as tuning_block
from sizeless.functional.geometry import Geometry
from sizeless.functional.plans import (
    Plan,
    Step,
    forget_plans,
    measured_plans_ignored,
    stays_factored,
)

SHAPES = (2, 4, 12, 12), (4, 4, 7, 7)
OTHER = Plan(Step("channels_last"), Step("direct"), Step("fft", (20, 24)))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty cache folder, and no plans in memory before or after."""
    monkeypatch.setenv("SIZELESS_CACHE", str(tmp_path / "cache"))
    plan_table.forget()
    forget_plans()
    yield tmp_path / "cache"
    plan_table.forget()
    forget_plans()


def present() -> Plan:
    return plan(*SHAPES, padding="same")


def step() -> None:
    input, weight = (torch.randn(shape, requires_grad=True) for shape in SHAPES)
    convolve(input, weight, padding="same").sum().backward()


def pretend(monkeypatch: pytest.MonkeyPatch, fastest: Plan) -> list[str]:
    """Let every step but those of ``fastest`` seem slow; return the products that are clocked."""
    clocked = []

    def clock(_run: object, products: tuple[str, ...], step: Step, _device: object) -> float:
        clocked.append("+".join(products))
        wanted = len(products) == 1 and step == getattr(fastest, products[0])
        return 1.0 if wanted else 5.0

    monkeypatch.setattr("sizeless.functional.measured._clock", clock)
    return clocked


def test_text_of_a_step_reads_back() -> None:
    for one in OTHER:
        assert Step.from_text(str(one)) == one


def test_the_fastest_is_followed_and_kept_for_the_next_process(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    before = present()
    chosen = Plan(Step("channels_last"), before.input_gradient, Step("direct"))
    assert chosen != before
    clocked = pretend(monkeypatch, chosen)
    with tuning():
        step()
        assert set(clocked) == {
            "output",
            "input_gradient",
            "weight_gradient",
            "input_gradient+weight_gradient",
        }
        assert present() == chosen
        clocked.clear()
        step()
        assert clocked == []
    plan_table.forget()
    forget_plans()
    assert present() == chosen
    content = json.loads((folder / "plans.json").read_text())
    assert [list(plans.values()) for plans in content.values()] == [[[str(s) for s in chosen]]]


def test_both_gradients_at_once_win_where_they_should(monkeypatch: pytest.MonkeyPatch) -> None:
    def clock(_run: object, products: tuple[str, ...], step: Step, _device: object) -> float:
        return 1.5 if len(products) == 2 else 1.0

    monkeypatch.setattr("sizeless.functional.measured._clock", clock)
    with tuning():
        step()
    chosen = present()
    assert chosen.input_gradient == chosen.weight_gradient
    assert chosen.input_gradient.method == "fft"


def test_the_model_is_followed_where_nothing_is_clearly_faster(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = present()
    monkeypatch.setattr(
        "sizeless.functional.measured._clock", lambda _run, products, *_: float(len(products))
    )
    with tuning():
        step()
    assert present() == before


def test_really_measured_plans_give_the_same_results(folder: Path) -> None:
    input, weight = (torch.randn(shape, requires_grad=True) for shape in SHAPES)
    expected = convolve(input, weight, padding="same", method="direct")
    with tuning():
        output = convolve(input, weight, padding="same")
    (plans,) = json.loads((folder / "plans.json").read_text()).values()
    assert len(plans) == 1
    torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-4)
    for mine, theirs in zip(
        torch.autograd.grad(output.sin().sum(), (input, weight)),
        torch.autograd.grad(expected.sin().sum(), (input, weight)),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_float32_alone_is_measured_and_others_follow(
    dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = present()
    chosen = Plan(Step("channels_last"), before.input_gradient, Step("direct"))
    clocked = pretend(monkeypatch, chosen)
    with tuning():
        convolve(*(torch.randn(shape, dtype=dtype) for shape in SHAPES), padding="same")
        assert clocked == []
        assert present() == before
        step()
    assert clocked
    assert present() == chosen


def test_plans_are_those_of_the_present_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    before = present()
    chosen = before._replace(output=plan(*SHAPES, padding="same", method="fft").output)
    assert chosen != before
    pretend(monkeypatch, chosen)
    with tuning():
        step()
    transforms = []
    original = spectral.output

    def watched(*arguments: Any) -> Any:
        transforms.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(spectral, "output", watched)
    operands = [torch.randn(shape) for shape in SHAPES]
    with torch.no_grad():
        for threads in (1, 2, 1, 2):
            monkeypatch.setattr(torch, "get_num_threads", lambda number=threads: number)
            assert present() == (chosen if threads == 1 else before)
            transforms.clear()
            convolve(*operands, padding="same")
            assert len(transforms) == (threads == 1)


def test_kernels_stay_factored_as_the_present_number_of_threads_asks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    geometry = Geometry(8, 30, 30, 1, (16000,), (16000,), (1,), (1,), ((15999, 0),))
    plan_table.record(geometry, "cpu", ("direct", "direct", "direct"))
    assert not stays_factored(geometry, 33, "cpu")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert stays_factored(geometry, 33, "cpu")


def test_forced_methods_and_plain_convolutions_are_not_measured(
    monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    clocked = pretend(monkeypatch, OTHER)
    step()
    with tuning():
        convolve(*map(torch.randn, SHAPES), padding="same", method="fft")
        convolve(torch.randn(0, 4, 12, 12), torch.randn(SHAPES[1]), padding="same")
    assert clocked == []


def test_measured_plans_can_be_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = present()
    pretend(monkeypatch, Plan(Step("channels_last"), Step("direct"), Step("direct")))
    with tuning():
        step()
    assert present() != before
    with measured_plans_ignored():
        assert present() == before
    assert present() != before


def test_one_block_at_a_time() -> None:
    with tuning(), pytest.raises(RuntimeError, match="one block at a time"), tuning_block():
        pass
    with tuning():
        pass


def test_plans_of_other_processes_are_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, OTHER)
    with tuning():
        step()
    elsewhere = {"another machine": {"[1]": ["direct", "direct", "direct"]}}
    path = folder / "plans.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **elsewhere}))
    plan_table.save()
    assert len(json.loads(path.read_text())) == 2


@pytest.mark.parametrize("content", ["{", "[1]", '{"m": {"g": ["direct"]}}', '{"m": 3}'])
def test_a_torn_table_is_named_and_not_used(content: str, folder: Path) -> None:
    folder.mkdir()
    (folder / "plans.json").write_text(content)
    with pytest.warns(UserWarning, match=r"plans\.json cannot be read .* remove the file"):
        chosen = present()
    with measured_plans_ignored():
        assert present() == chosen


def test_the_cache_can_be_switched_off(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setenv("SIZELESS_CACHE", "")
    plan_table.forget()
    assert plan_table.table_path() is None
    pretend(monkeypatch, OTHER)
    with tuning():
        step()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("platform", "variable", "tail"),
    [
        ("linux", "XDG_CACHE_HOME", ("base", "sizeless")),
        ("win32", "LOCALAPPDATA", ("base", "sizeless")),
        ("darwin", "HOME", ("base", "Library", "Caches", "sizeless")),
    ],
)
def test_the_systems_own_folder_is_the_default(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    platform: str,
    variable: str,
    tail: tuple[str, ...],
) -> None:
    monkeypatch.delenv("SIZELESS_CACHE")
    monkeypatch.setattr("sys.platform", platform)
    monkeypatch.setenv(variable, str(tmp_path / "base"))
    with warnings.catch_warnings():
        assert plan_table.cache_folder() == tmp_path.joinpath(*tail)
