"""The command line: ``sizeless fit`` and ``sizeless test``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

USAGE_ERROR = 2
"""Exit status of a request that cannot be met, as in argparse."""


def _fit(args: Sequence[str]) -> None:
    """Train a network: --config FILE --out DIR [--resume] [--KEY VALUE ...]."""
    from rich.console import Console

    from sizeless.study.figures import draw_sizes
    from sizeless.train.run import fit as run_fit
    from sizeless.train.tables import metric_line, size_table
    from sizeless.trajectories import read_points

    outcome = run_fit(args)
    points = read_points(outcome.folder.sizes)
    draw_sizes(points, outcome.network, outcome.folder.picture)
    console = Console()
    if points:
        chosen = outcome.metrics["epoch"]
        console.print(size_table([point for point in points if point.epoch <= chosen]))
    console.print(metric_line(outcome.metrics))
    console.print(f"Run folder: {outcome.folder.path}", highlight=False, soft_wrap=True)


def _test(args: Sequence[str]) -> None:
    """Test the checkpoint that a run chose: DIR."""
    from rich.console import Console

    from sizeless.train.run import test as run_test
    from sizeless.train.tables import metric_line

    Console().print(metric_line(run_test(args).metrics))


COMMANDS: dict[str, Callable[[Sequence[str]], None]] = {"fit": _fit, "test": _test}


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
        known = " and ".join(COMMANDS)
        return _complain(f"sizeless: {name!r} is no command; the commands are {known}")
    try:
        from sizeless.train.run import RunError
    except ModuleNotFoundError as error:
        return _complain(
            f"sizeless {name}: the package {error.name} is missing; "
            "install what training needs with: pip install 'sizeless[train]'"
        )
    try:
        COMMANDS[name](args)
    except RunError as error:
        return _complain(f"sizeless {name}: {error}")
    return 0


def _help() -> str:
    lines = [f"  {name:6}{command.__doc__}" for name, command in COMMANDS.items()]
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
