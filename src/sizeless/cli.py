"""The command line: what ``sizeless COMMAND`` does."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from sizeless.study.command import StudyRequest
    from sizeless.study.source import Source

Errors = type[Exception] | tuple[type[Exception], ...]

USAGE_ERROR = 2
"""Exit status of a request that cannot be met, as in argparse."""


def _fit(args: Sequence[str]) -> None:
    """Train a network: --config FILE --out DIR [--resume] [--fold FORMAT] [--KEY VALUE ...]."""
    from rich.console import Console

    from sizeless.study.figures import draw_sizes
    from sizeless.train.run import fit as run_fit
    from sizeless.train.tables import metric_line, size_table
    from sizeless.trajectories import read_points

    form, args = _format_to_fold_to(args)
    outcome = run_fit(args)
    if not outcome.is_main:
        return
    points = read_points(outcome.folder.sizes)
    draw_sizes(points, outcome.network, outcome.folder.picture)
    console = Console()
    if points:
        chosen = outcome.metrics["epoch"]
        console.print(size_table([point for point in points if point.epoch <= chosen]))
    console.print(metric_line(outcome.metrics))
    console.print(f"Run folder: {outcome.folder.path}", highlight=False, soft_wrap=True)
    if form is not None:
        _fold([str(outcome.folder.path), "--to", form])


def _format_to_fold_to(args: Sequence[str]) -> tuple[str | None, list[str]]:
    """Take ``--fold FORMAT`` out of the arguments of a training."""
    rest = list(args)
    flags = [arg for arg in rest if arg == "--fold" or arg.startswith("--fold=")]
    if not flags:
        return None, rest
    from sizeless.export.command import FORMATS
    from sizeless.train.run import RunError

    place = rest.index(flags[0])
    _, joined, form = rest.pop(place).partition("=")
    if not joined and place < len(rest):
        form = rest.pop(place)
    if form not in FORMATS:
        raise RunError(f"--fold must be one of {', '.join(FORMATS)}, got {form!r}")
    return form, rest


def _test(args: Sequence[str]) -> None:
    """Test the checkpoint that a run chose: DIR [--resolution PIXELS] [--data.KEY VALUE ...]."""
    from rich.console import Console

    from sizeless.train.run import test as run_test
    from sizeless.train.tables import metric_line

    outcome = run_test(args)
    if outcome.is_main:
        Console().print(metric_line(outcome.metrics))


def _fold(args: Sequence[str]) -> None:
    """Make the network of a run an ordinary one: DIR [--to onnx|torchexport|pt2] [--out FILE]."""
    from rich.console import Console

    from sizeless.export import command
    from sizeless.train.chosen import chosen

    request = command.parse(args)
    run = chosen(request.folder, request.resolution, request.rest)
    folded = command.run(request, run.network, run.samples)
    console = Console()
    console.print(command.table(folded.report))
    for line in command.lines(folded):
        console.print(line, highlight=False, soft_wrap=True)


def _report(args: Sequence[str]) -> None:
    """Write the page about a run: DIR [--out FILE] [--draws N]."""
    from rich.console import Console

    from sizeless.study import command
    from sizeless.study.page import write
    from sizeless.study.report import run_page
    from sizeless.train.chosen import chosen

    request = command.parse_report(args)
    run = chosen(request.run, args=request.rest, prog="sizeless report")
    console = Console()
    with console.status("Measuring") as status:
        page = run_page(
            run.folder.path,
            run.network,
            run.samples,
            run.make,
            draws=request.draws,
            most=request.kernels,
            progress=lambda what: status.update(f"Measuring {what}"),
        )
        path = request.out or run.folder.path / "report.html"
        write(page, path)
    console.print(f"Report: {path}", highlight=False, soft_wrap=True)


def _study(args: Sequence[str]) -> None:
    """Measure the filters of any network: DIR|torchvision:NAME|timm:NAME|CHECKPOINT [--out DIR]."""
    from rich.console import Console

    from sizeless.study import command

    request = command.parse_study(args)
    console = Console()
    with console.status("Loading") as status:
        source = _source(request)
        folder = request.out or command.usual_folder(request)
        found = command.run(request, source, folder, status.update)
    console.print(command.table(found))
    for line in command.lines(found, folder):
        console.print(line, highlight=False, soft_wrap=True)


def _source(request: StudyRequest) -> Source:
    """Load the network that a study is asked for; only a run needs what trains."""
    from sizeless.study.source import Source, load

    if not request.is_a_run:
        return load(
            request.target,
            weights=request.weights,
            input_shape=request.input_shape,
            samples=request.samples,
            trust=request.trust,
        )
    from sizeless.train.chosen import chosen

    run = chosen(request.run, None, request.rest, "sizeless study", request.checkpoint)
    weights = f"of {request.checkpoint or run.folder.best}"
    inputs = f"{len(run.samples)} validation samples"
    return Source(request.run.resolve().name, run.network, run.samples, run.make, weights, inputs)


def _fit_kernel(args: Sequence[str]) -> None:
    """Fit kernel networks to known kernels: [--targets NAME ...] [--networks NAME ...]."""
    from sizeless.study.fitting.command import fit_kernel

    fit_kernel(args)


def _bench(args: Sequence[str]) -> None:
    """Measure speed and memory against the alternatives: [--suite NAME] [--out DIR] [--quick]."""
    from sizeless.bench.run import bench

    bench(args)


def _training_error() -> Errors:
    from sizeless.train.run import RunError

    return RunError


def _fold_error() -> Errors:
    from sizeless.export import ExportError
    from sizeless.train.run import RunError

    return RunError, ExportError


def _report_error() -> Errors:
    from sizeless.study.source import StudyError
    from sizeless.train.run import RunError

    return RunError, StudyError


def _study_error() -> Errors:
    from sizeless.study.source import StudyError

    try:
        from sizeless.train.run import RunError
    except ModuleNotFoundError:
        # Networks that are no run of this library can be studied without what trains.
        return StudyError
    return RunError, StudyError


def _fit_kernel_error() -> Errors:
    from sizeless.study.fitting.request import FittingError

    return FittingError


def _bench_error() -> Errors:
    from sizeless.bench.run import BenchError

    return BenchError


EXTRAS = {
    "PIL": "vision",
    "aeon": "timeseries",
    "jinja2": "study",
    "mlxtend": "vision",
    "onnx": "export",
    "onnxruntime": "export",
    "onnxscript": "export",
    "pandas": "study",
    "safetensors": "vision",
    "sklearn": "study",
    "soundfile": "audio",
    "timm": "vision",
    "torchvision": "vision",
}
"""Packages that only some data sets and networks need, and the extra that installs each."""


class Command(NamedTuple):
    """One command.

    Attributes:
        run: What it does.
        error: Returns what it raises for a request that cannot be met; imports what it needs.
        extra: The extra of the package that it needs.
    """

    run: Callable[[Sequence[str]], None]
    error: Callable[[], Errors]
    extra: str


COMMANDS = {
    "fit": Command(_fit, _training_error, "train"),
    "test": Command(_test, _training_error, "train"),
    "report": Command(_report, _report_error, "train"),
    "study": Command(_study, _study_error, "study"),
    "fold": Command(_fold, _fold_error, "train"),
    "fit-kernel": Command(_fit_kernel, _fit_kernel_error, "study"),
    "bench": Command(_bench, _bench_error, "bench"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: Arguments without the program's name; ``None`` takes those of the process.

    Returns:
        0, or 2 if the request cannot be met, with one line on the standard error that says why.
    """
    name, *args = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    if name in {"-h", "--help"}:
        sys.stdout.write(_help())
        return 0
    if name not in COMMANDS:
        *others, last = COMMANDS
        known = f"{', '.join(others)} and {last}"
        return _complain(f"sizeless: {name!r} is no command; the commands are {known}")
    command = COMMANDS[name]
    # Networks and data in the folder where one is can be named, as with python -m.
    if (folder := str(Path.cwd())) not in sys.path:
        sys.path.append(folder)
    try:
        wrong_request = command.error()
    except ModuleNotFoundError as error:
        return _complain(_missing(name, error.name, command.extra))
    try:
        command.run(args)
    except wrong_request as error:
        return _complain(f"sizeless {name}: {error}")
    except ModuleNotFoundError as error:
        if error.name not in EXTRAS:
            raise
        return _complain(_missing(name, error.name, EXTRAS[error.name]))
    return 0


def _missing(command: str, package: str | None, extra: str) -> str:
    return (
        f"sizeless {command}: the package {package} is missing; "
        f"install what is needed with: pip install 'sizeless[{extra}]'"
    )


def _help() -> str:
    lines = [f"  {name:12}{command.run.__doc__}" for name, command in COMMANDS.items()]
    return "\n".join(
        [
            "usage: sizeless COMMAND ...",
            "",
            "Convolutional networks that learn their kernel sizes and strides.",
            "",
            *lines,
            "",
            "More about one: sizeless COMMAND --help",
            "",
        ]
    )


def _complain(message: str) -> int:
    sys.stderr.write(message + "\n")
    return USAGE_ERROR
