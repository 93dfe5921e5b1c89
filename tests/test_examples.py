"""The examples draw from their tables, without training again."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

EXAMPLES = Path(__file__).parents[1] / "examples"

COSTS = """\
run,budget,seed,size,macs,test/accuracy
"plain, fixed",0.5,0,19,2076300,0.92
learned,0.5,0,30 19 20 20,2161500,0.97
learned,1.0,0,38 37 30 40,3899100,0.96
"""

SEARCH = """\
run,seed,size,val/accuracy,test/accuracy,seconds
learned,{seed},14 15,0.98,0.99,127
fixed,{seed},18,0.97,0.97,207
fixed,{seed},5,0.40,0.34,76
"""


def example(name):
    """The module of an example."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def main(module, monkeypatch, *args):
    monkeypatch.setattr(sys, "argv", [module.__name__, *map(str, args)])
    module.main()


def test_accuracy_against_cost_is_drawn_again_from_its_table(tmp_path, monkeypatch):
    module = example("accuracy_against_cost")
    table = tmp_path / "cost.csv"
    table.write_text(COSTS, encoding="utf-8")
    main(module, monkeypatch, "--redraw", table)
    assert imread(tmp_path / "cost.png").std() > 0.02, "the picture is empty"
    assert {path.name for path in tmp_path.iterdir()} == {"cost.csv", "cost.png"}


def test_searches_of_several_seeds_are_drawn_again_together(tmp_path, monkeypatch):
    pytest.importorskip("optuna")
    module = example("learned_against_searched")
    tables = [tmp_path / f"search{seed}.csv" for seed in range(2)]
    for seed, table in enumerate(tables):
        table.write_text(SEARCH.format(seed=seed), encoding="utf-8")
    main(module, monkeypatch, "--redraw", *tables)
    assert imread(tmp_path / "search0.png").std() > 0.02, "the picture is empty"
    summary = module.compare(tables).summary()
    assert summary["seed"].tolist() == [0, 1]
    assert summary["searched"].tolist() == [0.97, 0.97]


@pytest.mark.parametrize("name", ["accuracy_against_cost", "learned_against_searched"])
def test_what_a_training_needs_must_be_given(name, monkeypatch, capsys):
    if name.endswith("searched"):
        pytest.importorskip("optuna")
    with pytest.raises(SystemExit):
        main(example(name), monkeypatch, "--learned", "recipe.yaml")
    assert "--out are needed, or --redraw" in capsys.readouterr().err
