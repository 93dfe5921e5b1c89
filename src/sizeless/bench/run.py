"""The command ``sizeless bench``: measure suites, write their tables and pictures."""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from sizeless._files import write_text
from sizeless.bench import convolution, layers, models
from sizeless.bench.case import Case, Laboratory
from sizeless.bench.machine import Rates, describe, measure_rates, now
from sizeless.bench.memory import MemoryMeter
from sizeless.bench.rows import Results, Row
from sizeless.bench.summary import bar_table, convolve_tables
from sizeless.bench.timing import Plan
from sizeless.functional import tuning
from sizeless.functional.plan_table import CACHE, table_path
from sizeless.functional.plans import ENVIRONMENT, measured_plans_ignored
from sizeless.machine import threads

SUITES: dict[str, Callable[[bool, str], Iterator[Case]]] = {
    "convolve": convolution.cases,
    "layers": layers.cases,
    "models": models.cases,
}

PLANS = {
    "convolve": Plan(budget=0.8, least=5, hopeless=convolution.HOPELESS),
    "layers": Plan(budget=3.0, least=5),
    "models": Plan(budget=20.0, least=3),
}

TUNED = ("convolve", "models")
"""Suites for which ``--tune`` measures plans; layers are made of the same convolutions."""

QUICK_PLAN = Plan(budget=0.15, least=3, most=10, hopeless=convolution.HOPELESS)

DESCRIPTION = """\
Measure sizeless against what one would use instead, side by side: time, peak memory, and the ratio
to what the machine can do. For each suite, DIR receives SUITE.csv, SUITE.json (the machine) and
SUITE.png."""

FILE_WIDTH = 160
"""Columns of tables that go into a file."""

DECISIVE = ("device_name", "threads", "torch", "quick", "tuned")
"""What must not change between the rows of one table."""


class BenchError(Exception):
    """A request that cannot be met; the message says in one line why, and what to do."""


@dataclass(frozen=True)
class Request:
    """What to measure.

    Attributes:
        suites: Names of suites.
        out: Folder for the results.
        quick: Whether to measure a few small cases only.
        threads: Threads of torch.
        device: ``"cpu"`` or ``"cuda"``.
        resume: Whether to keep rows that are there.
        only: Text that the names of cases must contain.
        tune: Whether to measure plans first, and keep them for this machine.
    """

    suites: tuple[str, ...]
    out: Path
    quick: bool
    threads: int
    device: str
    resume: bool
    only: str
    tune: bool


def bench(args: Sequence[str], prog: str = "sizeless bench") -> None:
    """Measure as the arguments say.

    Args:
        args: What ``--help`` lists.
        prog: The command, as its help and errors call it.

    Raises:
        BenchError: If an argument or the folder is not as it must be, or a run was interrupted.
    """
    request = parse(args, prog)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    try:
        plans = nullcontext() if request.tune else measured_plans_ignored()
        with warnings.catch_warnings(), threads(request.threads), plans:
            # Of other packages, and of torch about them.
            warnings.simplefilter("ignore")
            measure(request, console)
    except KeyboardInterrupt as stopped:
        raise BenchError(
            f"interrupted; what was measured is in {request.out}: go on with --resume"
        ) from stopped


def parse(args: Sequence[str], prog: str) -> Request:
    """Read the arguments.

    Args:
        args: The arguments of the command line.
        prog: The command, as its help and errors call it.

    Raises:
        BenchError: If the device is not there, the folder is a file, or an environment variable
            stands against what is asked for.
    """
    parser = argparse.ArgumentParser(prog=prog, description=DESCRIPTION)
    add = parser.add_argument
    add("--suite", choices=[*SUITES, "all"], default="all", help="what to measure (default: all)")
    add("--quick", action="store_true", help="a few small cases, to see that it works")
    add("--out", type=Path, default=Path("benchmark-results"), metavar="DIR", help="results folder")
    add("--threads", type=_positive, default=torch.get_num_threads(), help="threads of torch")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="where to compute")
    add("--resume", action="store_true", help="keep the rows that DIR has, and measure the others")
    add("--tune", action="store_true", help="keep the fastest plans for this machine, and use them")
    add("--only", default="", metavar="TEXT", help="only cases with TEXT in their names")
    given = vars(parser.parse_args(args))
    suite = given.pop("suite")
    request = Request(tuple(SUITES) if suite == "all" else (suite,), **given)
    if request.device == "cuda" and not torch.cuda.is_available():
        raise BenchError("--device cuda: torch finds no CUDA device here; use --device cpu")
    if request.out.exists() and not request.out.is_dir():
        raise BenchError(f"--out {request.out} is a file: name a folder")
    if os.environ.get(ENVIRONMENT, "auto") != "auto":
        raise BenchError(f"{ENVIRONMENT} forces a method on all convolutions: unset it")
    if request.tune and table_path() is None:
        raise BenchError(f"--tune: {CACHE} is empty, so no plan can be kept: let it name a folder")
    return request


def measure(request: Request, console: Console) -> None:
    """Measure the suites of a request, and write and show what comes out.

    Args:
        request: What to measure.
        console: Where to show progress and tables.

    Raises:
        BenchError: If there is nothing to measure, or the folder holds rows that these cannot be
            joined to.
    """
    cases = {suite: _cases(request, suite) for suite in request.suites}
    if not any(cases.values()):
        suites = " and ".join(request.suites)
        raise BenchError(f"--only {request.only}: no case of {suites} has this in its name")
    environment = describe(request.device, request.threads)
    environment.update(quick=request.quick, tuned=request.tune)
    tables = {s: _open(request, s, environment) for s in request.suites if cases[s]}
    rates = measure_rates(request.device, 0.2 if request.quick else 1.0)
    console.print(
        f"{environment['device_name']}, {request.threads} threads: "
        f"{rates.flops / 1e9:.0f} GFLOP/s, {rates.bytes / 1e9:.1f} GB/s",
        highlight=False,
    )
    environment.update(date=now(), rates=asdict(rates))
    with MemoryMeter(request.threads, plans=request.tune) as meter:
        for suite, results in tables.items():
            plan = QUICK_PLAN if request.quick else PLANS[suite]
            begun = _begun_under(request, suite) or environment
            write_text(_machine_file(request, suite), json.dumps(begun, indent=2) + "\n")
            laboratory = Laboratory(request.device, Rates(**begun["rates"]), plan, meter)
            _run_suite(suite, cases[suite], laboratory, results, request.tune)
    for suite, results in tables.items():
        _show(suite, results.rows, request.out, console)
    if request.tune:
        console.print(f"Plans: {table_path()}", highlight=False, soft_wrap=True)
    console.print(f"Results: {request.out}", highlight=False, soft_wrap=True)


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return value


def _cases(request: Request, suite: str) -> list[Case]:
    found = SUITES[suite](request.quick, request.device)
    return [case for case in found if request.only in case.name]


def _machine_file(request: Request, suite: str) -> Path:
    return request.out / f"{suite}.json"


def _begun_under(request: Request, suite: str) -> dict[str, Any] | None:
    """The environment of the rows that are kept, if any are."""
    path = _machine_file(request, suite)
    if not (request.resume and path.exists()):
        return None
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return content


def _open(request: Request, suite: str, environment: dict[str, Any]) -> Results:
    """The table of a suite, of which the folder may hold a part."""
    path = request.out / f"{suite}.csv"
    partial = Results.partial_of(path)
    if partial.exists() and not request.resume:
        raise BenchError(
            f"{partial} holds an unfinished run: add --resume to go on with it, or remove it"
        )
    try:
        begun, results = _begun_under(request, suite), Results(path, request.resume)
    except ValueError as error:
        raise BenchError(f"{error}; name another folder with --out") from error
    for name in DECISIVE:
        if begun is not None and begun.get(name) != environment[name]:
            raise BenchError(
                f"{path} was measured with {name} {begun.get(name)!r}, now it is "
                f"{environment[name]!r}: name another folder with --out"
            )
    return results


def _run_suite(
    suite: str, cases: Sequence[Case], laboratory: Laboratory, results: Results, tune: bool
) -> None:
    skips = convolution.Skips(results.rows)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns) as progress:
        task = progress.add_task(suite, total=len(cases))
        for case in cases:
            if not results.holds(case.name, case.mode):
                progress.update(task, description=f"{suite}: {case.name}, {case.mode}")
                if tune and suite in TUNED:
                    _tune(case)
                rows = laboratory.run(skips.apply(case))
                skips.learn(rows)
                results.add(rows)
            progress.advance(task)
    results.finish()


def _tune(case: Case) -> None:
    make = case.contenders[0].make
    if make is not None:
        # What fails will be reported when it is measured.
        with tuning(), suppress(Exception):
            make()()


def _show(suite: str, rows: Sequence[Row], out: Path, console: Console) -> None:
    tables = convolve_tables(rows) if suite == "convolve" else [bar_table(suite, rows)]
    for table in tables:
        console.print(table)
    if not tables:
        console.print(f"{suite}: nothing to compare", highlight=False)
        return
    if importlib.util.find_spec("matplotlib") is None:
        console.print("No picture: pip install matplotlib", highlight=False)
        return
    from sizeless.bench.plot import draw_bars, draw_convolve

    path = out / f"{suite}.png"
    if suite == "convolve":
        draw_convolve(rows, path)
    else:
        draw_bars(suite, rows, path)
