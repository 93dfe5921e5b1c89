"""The command ``sizeless bench``, from its arguments to its files."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch

from sizeless.bench import run as module
from sizeless.bench.case import Case, Contender, Laboratory
from sizeless.bench.machine import Rates
from sizeless.bench.rows import Results, read_rows
from sizeless.cli import main
from sizeless.functional import plan_table
from sizeless.functional.plans import forget_plans

TINY = {
    "convolve": "3-D depthwise 4x16x16x16x16 k3",
    "layers": "resample 1x8x32x32",
    "models": "FlexTCN-2",
}


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command, which must fail, and returns the one line that says why."""

    def run(*args: object) -> str:
        assert main(["bench", *map(str, args)]) == 2
        printed = capsys.readouterr()
        assert printed.err.count("\n") == 1
        assert printed.err.startswith("sizeless bench: ")
        return printed.err

    return run


@pytest.fixture
def two_cases(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let the suite ``layers`` have two small cases; return what was run."""
    ran: list[str] = []

    def make(name: str) -> Callable[[], object]:
        return partial(ran.append, name)

    def cases(_quick: bool, _device: str) -> Iterator[Case]:
        for name in ("first", "second"):
            pair = (
                Contender("sizeless", "ours", partial(make, name)),
                Contender("other", "baseline", partial(make, name), bar=1.0, in_fork=False),
            )
            yield Case("layers", "some", name, "forward", (1,), pair)

    monkeypatch.setitem(module.SUITES, "layers", cases)
    monkeypatch.setattr(module.MemoryMeter, "peak", lambda *_: 1.0)
    monkeypatch.setattr(module, "measure_rates", lambda *_: Rates(1e9, 1e9))
    return ran


def bench(out: Path, *more: str) -> int:
    return main(["bench", "--suite", "layers", "--quick", "--out", str(out), *more])


@pytest.mark.parametrize("suite", TINY)
def test_a_quick_run_leaves_tables_and_pictures(
    suite: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "results"
    args = ["--suite", suite, "--quick", "--only", TINY[suite], "--threads", "1"]
    assert main(["bench", *args, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert f"Results: {out}" in printed
    names = {path.name for path in out.iterdir()}
    pictures = {f"{suite}.png"} if "No picture" not in printed else set()
    assert names == {f"{suite}.csv", f"{suite}.json", *pictures}
    rows = read_rows(out / f"{suite}.csv")
    assert {row.suite for row in rows} == {suite}
    ours = [row for row in rows if row.role == "ours"]
    assert ours
    assert all(row.status == "ok" and row.median_ms > 0 for row in ours)
    assert all(row.peak_mib is not None for row in ours) or not Path("/proc/self").exists()
    assert not [row for row in rows if row.status in {"failed", "wrong"}]
    machine = json.loads((out / f"{suite}.json").read_text())
    assert (machine["threads"], machine["quick"], machine["tuned"]) == (1, True, False)
    assert machine["rates"]["flops"] > 0


def test_cases_without_the_text_are_left_out(tmp_path: Path, two_cases: list[str]) -> None:
    assert bench(tmp_path, "--only", "second") == 0
    assert {row.case for row in read_rows(tmp_path / "layers.csv")} == {"second"}
    assert set(two_cases) == {"second"}


def test_suites_without_the_text_are_left_out(tmp_path: Path, two_cases: list[str]) -> None:
    assert main(["bench", "--quick", "--only", "second", "--out", str(tmp_path)]) == 0
    assert {path.suffix for path in tmp_path.glob("*")} <= {".csv", ".json", ".png"}
    assert {path.stem for path in tmp_path.glob("*")} == {"layers"}


def test_a_run_that_was_interrupted_goes_on(
    tmp_path: Path,
    two_cases: list[str],
    monkeypatch: pytest.MonkeyPatch,
    fails: Callable[..., str],
) -> None:
    args = "--suite", "layers", "--quick", "--out", tmp_path
    with monkeypatch.context() as patch:
        whole = Laboratory.run

        def run(self: Laboratory, case: Case) -> Any:
            if case.name == "second":
                raise KeyboardInterrupt
            return whole(self, case)

        patch.setattr(Laboratory, "run", run)
        assert "interrupted" in fails(*args)
    partial_table = Results.partial_of(tmp_path / "layers.csv")
    assert {row.case for row in read_rows(partial_table)} == {"first"}
    begun = (tmp_path / "layers.json").read_text()
    assert "holds an unfinished run: add --resume" in fails(*args)

    two_cases.clear()
    assert bench(tmp_path, "--resume") == 0
    assert set(two_cases) == {"second"}
    assert [row.case for row in read_rows(tmp_path / "layers.csv")] == ["first"] * 2 + [
        "second"
    ] * 2
    assert not partial_table.exists()
    assert (tmp_path / "layers.json").read_text() == begun, "limits are of the same machine"

    two_cases.clear()
    assert bench(tmp_path, "--resume") == 0
    assert two_cases == []


def test_rows_of_different_machines_are_not_mixed(
    tmp_path: Path, two_cases: list[str], fails: Callable[..., str]
) -> None:
    assert bench(tmp_path, "--threads", "1") == 0
    args = "--suite", "layers", "--out", tmp_path, "--resume"
    assert "with threads 1, now it is 2: name another" in fails(*args, "--quick", "--threads", 2)
    assert "with quick True, now it is False" in fails(*args, "--threads", 1)
    machine = json.loads((tmp_path / "layers.json").read_text())
    (tmp_path / "layers.json").write_text(json.dumps({**machine, "torch": "1.0"}))
    assert "with torch '1.0', now it is" in fails(*args, "--quick", "--threads", 1)
    assert bench(tmp_path, "--threads", "1") == 0, "without --resume it begins anew"


@pytest.mark.parametrize("name", ["layers.csv", "layers.json"])
def test_damaged_files_are_told(
    name: str, tmp_path: Path, two_cases: list[str], fails: Callable[..., str]
) -> None:
    assert bench(tmp_path) == 0
    text = (tmp_path / name).read_text()
    (tmp_path / name).write_text(text[: len(text) // 2])
    message = fails("--suite", "layers", "--quick", "--out", tmp_path, "--resume")
    assert "name another folder with --out" in message
    assert str(tmp_path) in message


def test_requests_that_cannot_be_met(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "is a file: name a folder" in fails("--out", tmp_path / "file")
    assert "no case of models has this" in fails("--suite", "models", "--only", "no such case")
    assert "SIZELESS_CACHE is empty" in fails("--tune")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "--device cuda: torch finds no CUDA device" in fails("--device", "cuda")
    monkeypatch.setenv("SIZELESS_METHOD", "fft")
    assert "SIZELESS_METHOD forces a method" in fails("--quick")


@pytest.mark.parametrize("args", [["--threads", "0"], ["--suite", "none"], ["--device", "tpu"]])
def test_arguments_that_do_not_parse(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["bench", *args])
    assert stopped.value.code == 2
    assert args[0] in capsys.readouterr().err


def test_tuning_keeps_plans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SIZELESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(module.MemoryMeter, "peak", lambda *_: None)
    plan_table.forget()
    forget_plans()
    args = ["bench", "--suite", "convolve", "--quick", "--only", TINY["convolve"]]
    try:
        assert main([*args, "--out", str(tmp_path / "tuned"), "--tune"]) == 0
        (plans,) = json.loads((tmp_path / "cache" / "plans.json").read_text()).values()
    finally:
        plan_table.forget()
        forget_plans()
    (key,) = plans
    assert json.loads(key)[:4] == [4, 16, 16, 16]
    assert len(plans[key]) == 3
    assert f"Plans: {tmp_path / 'cache' / 'plans.json'}" in capsys.readouterr().out
    assert json.loads((tmp_path / "tuned" / "convolve.json").read_text())["tuned"] is True


def test_a_case_that_cannot_be_tuned_is_a_row_that_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cases(_quick: bool, _device: str) -> Iterator[Case]:
        broken = Contender("sizeless", "ours", partial(divmod, 1, 0))
        yield Case("convolve", "1-D dense", "broken", "forward", (1,), (broken,))

    monkeypatch.setenv("SIZELESS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(module.SUITES, "convolve", cases)
    args = ["bench", "--suite", "convolve", "--quick", "--tune", "--out", str(tmp_path / "out")]
    assert main(args) == 0
    (row,) = read_rows(tmp_path / "out" / "convolve.csv")
    assert (row.status, row.note.split(":")[0]) == ("failed", "ZeroDivisionError")
    plan_table.forget()


def test_without_matplotlib_there_is_no_picture(
    tmp_path: Path,
    two_cases: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: None)
    assert bench(tmp_path) == 0
    assert "No picture: pip install matplotlib" in capsys.readouterr().out
    assert not (tmp_path / "layers.png").exists()


def test_threads_and_plans_return_to_what_they_were(tmp_path: Path, two_cases: list[str]) -> None:
    before = torch.get_num_threads()
    assert bench(tmp_path, "--threads", str(before + 1)) == 0
    assert torch.get_num_threads() == before
    assert json.loads((tmp_path / "layers.json").read_text())["threads"] == before + 1
