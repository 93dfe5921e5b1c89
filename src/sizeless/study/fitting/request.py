"""The arguments of ``sizeless fit-kernel``."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sizeless.study.fitting.networks import NETWORKS
from sizeless.study.fitting.njet import NJET, ORDER
from sizeless.study.fitting.targets import TARGETS, Target, read_target, target

CONTENDERS = (*NETWORKS, NJET)
USUAL = ("magnet", "gabor", "fourier", "siren", "mlp", NJET)
RATES = (0.001, 0.003, 0.01, 0.03)
REFERENCE = "magnet"
"""Network whose number of parameters the others are to match."""

DESCRIPTION = f"""\
Fit kernel networks to kernels by full-batch Adam, and compare error, speed
and spectrum. Each network has the learning rate of --rates with which it
does best on average over all targets, found with a seed of its own. {NJET},
the derivatives of one Gaussian up to order {ORDER}, is fitted by least squares.
DIR receives fits.csv (one row per fit, as they come), curves.csv,
spectra.csv, kernels.npz, and in the end tables and pictures:
kernel_fitting*."""


class FittingError(Exception):
    """A request that cannot be met; the message says in one line why, and what to do."""


@dataclass(frozen=True)
class Request:
    """What was asked for.

    Attributes:
        targets: What to fit.
        networks: Names of the networks.
        seeds: Seeds of each reported fit.
        steps: Updates of each fit.
        size: Taps per axis of the targets that the package has.
        hidden: Units per layer.
        match: ``"width"`` for the same number of units, ``"parameters"`` for about the same number
            of parameters.
        rates: Learning rates to choose from.
        scale: Factor for the first frequencies of all networks.
        threads: Threads of torch.
        out: Folder for the results.
        resume: Whether to keep the fits that are there.
    """

    targets: tuple[Target, ...]
    networks: tuple[str, ...]
    seeds: int
    steps: int
    size: int
    hidden: int
    match: str
    rates: tuple[float, ...]
    scale: float
    threads: int
    out: Path
    resume: bool

    def settings(self) -> dict[str, Any]:
        """What must be the same for fits that are compared."""
        same = {name: getattr(self, name) for name in ("steps", "size", "hidden", "match", "scale")}
        targets = {made.name: list(made.values.shape) for made in self.targets}
        return {"targets": targets, **same, "rates": list(self.rates), "threads": self.threads}


def parse(args: Sequence[str], prog: str = "sizeless fit-kernel") -> Request:
    """Read the arguments of the command.

    Args:
        args: What ``--help`` lists.
        prog: The command, as its help and errors call it.

    Raises:
        FittingError: If they are not as they must be.
    """
    try:
        own, rest = _parser(prog).parse_known_args(args)
    except argparse.ArgumentError as error:
        raise FittingError(str(error)) from error
    if rest:
        raise FittingError(f"{rest[0]} is unknown; {prog} --help lists what is known")
    given = vars(own)
    _check(given)
    # As many digits as the tables keep.
    given["rates"] = tuple(float(f"{rate:.6g}") for rate in given["rates"])
    given["networks"] = tuple(given["networks"])
    given["targets"] = tuple(_targets(given["targets"], given["size"]))
    return Request(**given)


def _parser(prog: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=prog,
        description=DESCRIPTION,
        epilog="\n".join(["targets:", *(f"  {n:9} {made.says}" for n, made in TARGETS.items())]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--targets",
        nargs="+",
        default=list(TARGETS),
        metavar="TARGET",
        help="names, or .npy files with your own kernels (default: all names below)",
    )
    add(
        "--networks",
        nargs="+",
        default=list(USUAL),
        metavar="NETWORK",
        help=f"of {', '.join(CONTENDERS)} (default: all but nsiren)",
    )
    add("--seeds", type=int, default=3, metavar="N", help="fits of each kind (default: 3)")
    add("--steps", type=int, default=1000, metavar="N", help="updates of a fit (default: 1000)")
    add("--size", type=int, default=33, metavar="N", help="taps per axis, odd (default: 33)")
    add("--hidden", type=int, default=32, metavar="N", help="units per layer (default: 32)")
    add(
        "--match",
        choices=("width", "parameters"),
        default="width",
        help=f"whether all networks have --hidden units, or {REFERENCE} alone and the others about "
        "as many parameters (default: width)",
    )
    add(
        "--rates",
        type=float,
        nargs="+",
        default=list(RATES),
        metavar="RATE",
        help=f"learning rates to choose from (default: {' '.join(map(str, RATES))})",
    )
    add(
        "--scale",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="factor for the first frequencies of all networks that have any (default: 1)",
    )
    add("--threads", type=int, default=1, metavar="N", help="threads of torch (default: 1)")
    add(
        "--out",
        type=Path,
        default=Path("kernel-fitting"),
        metavar="DIR",
        help="folder for the results (default: kernel-fitting)",
    )
    add("--resume", action="store_true", help="keep the fits that DIR has, and make the others")
    return parser


def _check(given: dict[str, Any]) -> None:
    _check_numbers(given)
    for name in given["networks"]:
        if name not in CONTENDERS:
            raise FittingError(f"--networks must be of {', '.join(CONTENDERS)}, got {name!r}")
    for name in ("targets", "networks", "rates"):
        doubled = [value for value in given[name] if given[name].count(value) > 1]
        if doubled:
            raise FittingError(f"--{name} holds {doubled[0]!r} twice: name it once")
    if given["out"].exists() and not given["out"].is_dir():
        raise FittingError(f"--out {given['out']} is a file: name a folder")


def _check_numbers(given: dict[str, Any]) -> None:
    for name, least in {"seeds": 1, "steps": 0, "hidden": 1, "threads": 1}.items():
        if given[name] < least:
            raise FittingError(f"--{name} must be at least {least}, got {given[name]}")
    for name, values in {"rates": given["rates"], "scale": [given["scale"]]}.items():
        for value in values:
            if not (math.isfinite(value) and value > 0):
                raise FittingError(f"--{name} must be positive, got {value}")


def _targets(names: Sequence[str], size: int) -> Iterator[Target]:
    seen = set()
    for name in names:
        try:
            made = read_target(Path(name)) if name.endswith(".npy") else target(name, size)
        except ValueError as error:
            raise FittingError(f"--targets: {error}") from error
        if made.name in seen:
            raise FittingError(f"--targets: two are called {made.name!r}: rename the file")
        seen.add(made.name)
        yield made
