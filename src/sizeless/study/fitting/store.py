"""The files of a comparison; every fit is on disk as soon as it is made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sizeless._files import write_atomically, write_text
from sizeless.study.fitting.fit import Fit
from sizeless.study.fitting.spectrum import error_between, share_above, square_rings
from sizeless.study.fitting.targets import Target

SETTINGS, KERNELS = "settings.json", "kernels.npz"
SEARCH, FINAL = "search", "fit"
TARGET = "target"
"""Name of the target itself among the networks, in spectra and kernels."""

KEY = ["stage", "target", "network", "seed", "rate"]
COLUMNS: dict[str, list[str]] = {
    "fits": [
        *KEY,
        *("hidden", "parameters", "taps", "steps", "mse", "nmse", "between_nmse", "above_nyquist"),
        *("seconds", "close_step", "close_seconds", "bound", "highest", "nyquist"),
    ],
    "curves": [*KEY, "step", "seconds", "mse"],
    "spectra": ["target", "network", "frequency", "energy"],
}
"""Columns of the tables. Frequencies are in cycles per unit of the coordinate."""
WHOLE = ("seed", "hidden", "parameters", "taps", "steps", "close_step")


class Job(NamedTuple):
    """A fit to be made.

    Attributes:
        stage: ``"search"`` for the learning rate, or ``"fit"``.
        target: Name of the target.
        network: Name of the network.
        seed: Seed of its weights.
        rate: Learning rate; 0 for what is not fitted by descent.
    """

    stage: str
    target: str
    network: str
    seed: int
    rate: float


class StoreError(ValueError):
    """A folder that cannot be gone on with."""


@dataclass
class Store:
    """All fits of a comparison, and the folder that they are kept in.

    ``fits.csv`` has a row for every fit. Of the reported ones ``curves.csv`` has the error over the
    steps; ``spectra.csv`` and ``kernels.npz`` hold the first seed of each target and network. Files
    are replaced as a whole, ``fits.csv`` last, so that a fit counts only if all of it is there.

    Attributes:
        folder: Where they are.
        fits: Table of the fits.
        curves: Table of errors over steps.
        spectra: Table of spectra.
        kernels: Values at the taps by ``TARGET/NETWORK``.
    """

    folder: Path
    fits: pd.DataFrame = field(default_factory=lambda: _empty("fits"))
    curves: pd.DataFrame = field(default_factory=lambda: _empty("curves"))
    spectra: pd.DataFrame = field(default_factory=lambda: _empty("spectra"))
    kernels: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def begin(cls, folder: Path, settings: Mapping[str, Any], *, resume: bool) -> Store:
        """Open the folder of a comparison.

        Args:
            folder: Where the files are to be; it need not exist.
            settings: What decides the fits.
            resume: Whether to keep the fits that are there.

        Raises:
            StoreError: If the folder holds fits that are not to be kept, or that were made under
                other settings, or its files are damaged.
        """
        path = folder / SETTINGS
        if not path.exists():
            write_text(path, json.dumps(settings, indent=1) + "\n")
            return cls(folder)
        if not resume:
            raise StoreError(f"{folder} holds fits: add --resume to keep them, or name another")
        before = read_settings(folder)
        for name, value in settings.items():
            if before.get(name) != value:
                raise StoreError(
                    f"{folder} was begun with {name} {before.get(name)!r}, now it is {value!r}: "
                    "name another folder"
                )
        return cls.read(folder)

    @classmethod
    def read(cls, folder: Path) -> Store:
        """Read what is in a folder.

        Raises:
            StoreError: If a file is damaged.
        """
        tables = {name: _read(folder, name) for name in COLUMNS}
        known = pd.MultiIndex.from_frame(tables["fits"][KEY])
        noted = pd.MultiIndex.from_frame(tables["curves"][KEY])
        tables["curves"] = tables["curves"][noted.isin(known)].reset_index(drop=True)
        path = folder / KERNELS
        kernels = {}
        if path.exists():
            try:
                with np.load(path, allow_pickle=False) as arrays:
                    kernels = {name: arrays[name] for name in arrays.files}
            except (OSError, ValueError, EOFError) as error:
                raise StoreError(f"{path} is damaged: {error}") from error
        return cls(folder, **tables, kernels=kernels)

    def holds(self, job: Job) -> bool:
        """Return whether a fit has been made."""
        return bool((self.fits[KEY] == pd.Series(job._asdict())).all(axis=1).any())

    def add(self, job: Job, fit: Fit, target: Target, hidden: int | None) -> None:
        """Keep a fit.

        Args:
            job: Which it is.
            fit: What came of it.
            target: What was fitted.
            hidden: Width of the network, if it has one.
        """
        row = _row(job, fit, target, hidden)
        self.fits = _join("fits", self.fits, [row])
        if job.stage == FINAL:
            moments = [{**job._asdict(), **vars(moment)} for moment in fit.curve]
            self.curves = _join("curves", self.curves, moments)
            self._write("curves")
            name = f"{target.name}/{job.network}"
            if name not in self.kernels:
                self._picture(name, target, fit)
        self._write("fits")

    def _picture(self, name: str, target: Target, fit: Fit) -> None:
        """Keep the kernel of a fit and its spectrum, with the target's own if they are new."""
        spectra = {(target.name, name.rpartition("/")[2]): fit.fine}
        self.kernels[name] = fit.values
        if f"{target.name}/{TARGET}" not in self.kernels:
            self.kernels[f"{target.name}/{TARGET}"] = target.values
            known = target.values if target.fine is None else target.fine
            spectra[target.name, TARGET] = known
        for (which, network), values in spectra.items():
            rows = [
                {"target": which, "network": network, "frequency": frequency, "energy": energy}
                for frequency, energy in zip(*square_rings(values), strict=True)
            ]
            self.spectra = _join("spectra", self.spectra, rows)
        self._write("spectra")
        arrays: dict[str, Any] = self.kernels
        write_atomically(self.folder / KERNELS, lambda file: np.savez_compressed(file, **arrays))

    def _write(self, name: str) -> None:
        table: pd.DataFrame = getattr(self, name)
        write_text(self.folder / f"{name}.csv", table.to_csv(index=False, float_format="%.6g"))


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the settings that the fits in a folder were begun with.

    Raises:
        StoreError: If there are none, or they cannot be read.
    """
    path = folder / SETTINGS
    try:
        settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise StoreError(f"{path} cannot be read: {error}") from error
    return settings


def _row(job: Job, fit: Fit, target: Target, hidden: int | None) -> dict[str, Any]:
    return {
        **job._asdict(),
        "hidden": hidden,
        "parameters": fit.parameters,
        "taps": target.taps,
        "steps": fit.steps,
        "mse": fit.mse,
        "nmse": fit.mse / target.variance,
        "between_nmse": error_between(fit.fine, target),
        "above_nyquist": share_above(fit.fine, target.nyquist),
        "seconds": fit.seconds,
        "close_step": None if fit.close is None else fit.close.step,
        "close_seconds": None if fit.close is None else fit.close.seconds,
        "bound": fit.bound,
        "highest": target.highest,
        "nyquist": target.nyquist,
    }


def _empty(name: str) -> pd.DataFrame:
    return _typed(pd.DataFrame(columns=COLUMNS[name]))


def _join(name: str, table: pd.DataFrame, rows: list[dict[str, Any]]) -> pd.DataFrame:
    added = _typed(pd.DataFrame(rows, columns=COLUMNS[name]))
    return pd.concat([table, added], ignore_index=True) if len(table) else added


def _typed(table: pd.DataFrame) -> pd.DataFrame:
    kinds = {
        name: "Int64" if name in WHOLE else "float64"
        for name in table.columns
        if name not in {"stage", "target", "network"}
    }
    return table.astype(kinds)


def _read(folder: Path, name: str) -> pd.DataFrame:
    path = folder / f"{name}.csv"
    if not path.exists():
        return _empty(name)
    try:
        table = pd.read_csv(path)
        if list(table.columns) == COLUMNS[name]:
            return _typed(table)
    except ValueError as error:
        raise StoreError(f"{path} is damaged: {error}") from error
    raise StoreError(f"{path} has other columns than this version of sizeless writes")
