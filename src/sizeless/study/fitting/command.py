"""What ``sizeless fit-kernel`` does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from sizeless.machine import threads
from sizeless.study.fitting.fit import fit, fit_jet
from sizeless.study.fitting.networks import make, parameters, width_for
from sizeless.study.fitting.njet import NJET
from sizeless.study.fitting.pictures import label, names, network_names, shown
from sizeless.study.fitting.request import REFERENCE, FittingError, Request, parse
from sizeless.study.fitting.result import KernelFitting, search_table
from sizeless.study.fitting.store import FINAL, SEARCH, Job, Store, StoreError

SEARCH_SEED = 1000
"""Seed of the fits that learning rates are chosen by; the reported fits have others."""
FILE_WIDTH = 120
"""Columns of tables that go into a file."""


def fit_kernel(args: Sequence[str], prog: str = "sizeless fit-kernel") -> None:
    """Fit as the arguments say, and write and show what comes out.

    Args:
        args: What ``--help`` lists.
        prog: The command, as its help and errors call it.

    Raises:
        FittingError: If an argument or the folder is not as it must be, or the fits were
            interrupted.
    """
    request = parse(args, prog)
    console = Console()
    if not console.is_terminal:
        console.width = max(console.width, FILE_WIDTH)
    try:
        with threads(request.threads):
            result = run(request, console)
    except StoreError as error:
        raise FittingError(str(error)) from error
    except KeyboardInterrupt as stopped:
        raise FittingError(
            f"interrupted; what was fitted is in {request.out}: go on with --resume"
        ) from stopped
    for table in tables(result):
        console.print(table)
    console.print(f"Files: {request.out}", highlight=False, soft_wrap=True)


def run(request: Request, console: Console) -> KernelFitting:
    """Make all fits of a request, and write files and pictures.

    Args:
        request: What was asked for.
        console: Where to show progress.

    Raises:
        StoreError: If the folder holds fits that these cannot be joined to.
    """
    store = Store.begin(request.out, request.settings(), resume=request.resume)
    searches = list(_searches(request))
    total = len(searches) + len(_finals(request, dict.fromkeys(request.networks, 0.0)))
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    # Refreshing from a thread of its own would count as processor time of the fits.
    with Progress(*columns, console=console, auto_refresh=False) as progress:
        task = progress.add_task("fits", total=total)

        def work(jobs: Sequence[Job]) -> None:
            for job in jobs:
                now = f"{job.target}, {label(job.network)}"
                progress.update(task, description=now, refresh=True)
                if not store.holds(job):
                    _make(job, request, store)
                progress.advance(task)
            progress.refresh()

        work(searches)
        work(_finals(request, _rates(request, store)))
    result = KernelFitting.read(request.out)
    result.save(request.out)
    return result


def _searches(request: Request) -> Iterator[Job]:
    if len(request.rates) == 1:
        return
    for network in request.networks:
        if network != NJET:
            for rate in request.rates:
                for wanted in request.targets:
                    yield Job(SEARCH, wanted.name, network, SEARCH_SEED, rate)


def _finals(request: Request, rates: dict[str, float]) -> list[Job]:
    return [
        Job(FINAL, wanted.name, network, seed, rates[network])
        for wanted in request.targets
        for network in request.networks
        # Least squares have neither seed nor learning rate.
        for seed in range(1 if network == NJET else request.seeds)
    ]


def _rates(request: Request, store: Store) -> dict[str, float]:
    """The learning rate of each network."""
    rates = dict.fromkeys(request.networks, request.rates[0])
    if len(request.rates) > 1:
        found = search_table(store.fits)
        rates.update(found[found["chosen"]].set_index("network")["rate"])
    return {network: 0.0 if network == NJET else rates[network] for network in request.networks}


def _make(job: Job, request: Request, store: Store) -> None:
    (wanted,) = (made for made in request.targets if made.name == job.target)
    if job.network == NJET:
        store.add(job, fit_jet(wanted), wanted, None)
        return
    shape = (wanted.ndim, len(wanted.values))
    hidden = _width(job.network, shape, request)
    network = make(job.network, *shape, hidden=hidden, scale=request.scale, seed=job.seed)
    store.add(job, fit(network, wanted, rate=job.rate, steps=request.steps), wanted, hidden)


def _width(network: str, shape: tuple[int, int], request: Request) -> int:
    if request.match == "width":
        return request.hidden
    return width_for(network, *shape, parameters(REFERENCE, *shape, request.hidden))


def tables(result: KernelFitting) -> list[Table]:
    """Return what is shown in the end: errors at and between the taps, and the networks.

    Args:
        result: What was found.
    """
    rows = result.table()
    return [
        _error_table(rows, "nmse", "Error at the taps / variance (* lowest)"),
        _error_table(rows, "between_nmse", "Error between the taps / variance (* lowest)"),
        _network_table(rows),
    ]


def _error_table(rows: Any, column: str, title: str) -> Table:
    grid = rows.pivot(index="target", columns="network", values=column)
    networks, targets = network_names(rows), names(rows, "target")
    made = _titled(title)
    for name in ("target", *map(label, networks)):
        made.add_column(name, justify="left" if name == "target" else "right")
    for name in targets:
        errors, lowest = grid.loc[name, networks], grid.loc[name].min()
        made.add_row(name, *(f"{shown(e)}{'*' if e == lowest else ' '}" for e in errors))
    return made


def _network_table(rows: Any) -> Table:
    made = _titled("Networks")
    for column in ("network", "units", "parameters", "learning rate", "seconds per fit"):
        made.add_column(column, justify="left" if column == "network" else "right")
    for network, part in rows.groupby("network", sort=False):
        rate = part["rate"].iloc[0]
        made.add_row(
            label(network),
            _range(part["hidden"]),
            _range(part["parameters"]),
            f"{rate:g}" if rate else "–",
            f"{part['seconds'].median():.2f}",
        )
    return made


def _titled(title: str) -> Table:
    return Table(title=title, title_justify="left", title_style="bold")


def _range(values: Any) -> str:
    known = values.dropna()
    if not len(known):
        return "–"
    low, high = int(known.min()), int(known.max())
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
