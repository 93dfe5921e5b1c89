"""What a comparison of kernel networks came to."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from sizeless._files import write_atomically
from sizeless.study.fitting import pictures
from sizeless.study.fitting.store import FINAL, SEARCH, Store, StoreError, read_settings
from sizeless.study.result import Result

SAME = ("rate", "hidden", "parameters", "taps", "highest", "nyquist")
"""Columns that do not depend on the seed."""
MEDIANS = ("mse", "nmse", "between_nmse", "above_nyquist", "seconds", "bound")


@dataclass(frozen=True)
class KernelFitting(Result):
    """Errors of kernel networks on kernels.

    Attributes:
        fits: One row per fit.
        curves: Error over the steps of each fit.
        spectra: Energy over frequency, for the first seed of each fit and for the targets.
        kernels: Values at the taps, for the first seed, by ``TARGET/NETWORK``.
        settings: What decided the fits.
    """

    stem: ClassVar[str] = "kernel_fitting"
    title: ClassVar[str] = "Kernels that kernel networks can represent"

    fits: pd.DataFrame
    curves: pd.DataFrame
    spectra: pd.DataFrame
    kernels: Mapping[str, np.ndarray]
    settings: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path | str) -> KernelFitting:
        """Read the folder that ``sizeless fit-kernel`` wrote.

        Raises:
            StoreError: If it holds no fits, or its files are damaged; a ``ValueError``.
        """
        settings, store = read_settings(Path(folder)), Store.read(Path(folder))
        if not (store.fits["stage"] == FINAL).any():
            raise StoreError(f"{folder} holds no finished fit: go on with --resume")
        return cls(store.fits, store.curves, store.spectra, store.kernels, settings)

    def table(self) -> pd.DataFrame:
        """Return one row per target and network: medians over the seeds.

        Columns are those of ``fits.csv``: ``mse`` at the taps, and ``nmse``, the same over the
        variance of the target; ``between_nmse`` between the taps, where the target is known there;
        ``above_nyquist``, the share of the fit's energy above the Nyquist frequency of the taps;
        ``seconds`` of processor time; ``close_step`` and ``close_seconds`` after which ``nmse`` was
        0.01, empty unless more than half of the seeds came so far; ``bound``, ``highest``
        frequency of the target and ``nyquist`` in cycles per unit of the coordinate.
        ``nmse_low`` and ``nmse_high`` are the best and the worst seed, and ``best`` marks the
        network of the lowest ``nmse`` on each target.
        """
        final = self.fits[self.fits["stage"] == FINAL].astype({"close_step": float})
        groups = final.groupby(["target", "network"], sort=False)
        rows = groups[list(SAME)].first()
        rows.insert(0, "seeds", groups["seed"].nunique())
        rows[list(MEDIANS)] = groups[list(MEDIANS)].median()
        for name in ("close_step", "close_seconds"):
            rows[name] = groups[name].agg(_median_of_all)
        rows["nmse_low"], rows["nmse_high"] = groups["nmse"].min(), groups["nmse"].max()
        rows["best"] = rows["nmse"] == rows.groupby(level="target")["nmse"].transform("min")
        rows = rows.reset_index()
        order = [pictures.names(rows, "target"), pictures.network_names(rows)]
        places = [rows[n].map(o.index) for n, o in zip(("target", "network"), order, strict=True)]
        return rows.iloc[np.lexsort(places[::-1])].reset_index(drop=True)

    def figure(self) -> Figure:
        """Return the normalised errors, target by network."""
        return pictures.errors(self.table())

    def curves_figure(self) -> Figure:
        """Return error over steps, one panel per target."""
        return pictures.curves(self.fits, self.curves)

    def spectra_figure(self) -> Figure:
        """Return the spectra of targets and fits, one panel per target."""
        return pictures.spectra(self.fits, self.spectra)

    def kernels_figure(self) -> Figure:
        """Return targets and fits themselves."""
        return pictures.kernels(self.kernels)

    def caption(self) -> str:
        """Return what the picture shows."""
        table = self.table()
        wins = table.loc[table["best"], "network"].value_counts()
        counted = ", ".join(f"{pictures.label(name)} {count}" for name, count in wins.items())
        return (
            "Mean squared error over the variance of the target, at the taps and between them, the "
            f"median of {int(table['seeds'].max())} seeds, for each target (rows) and kernel "
            "network (columns). The lowest of each row is outlined; at the taps this is "
            f"{counted}."
        )

    def save(self, folder: Path | str) -> list[Path]:
        """Write table and picture, and the other three pictures beside them.

        Returns:
            The files.
        """
        paths = super().save(folder)
        others: dict[str, Callable[[], Figure]] = {
            "curves": self.curves_figure,
            "spectra": self.spectra_figure,
            "kernels": self.kernels_figure,
        }
        for name, draw in others.items():
            path = Path(folder) / f"{self.stem}_{name}.png"
            write_atomically(path, partial(_save, draw()))
            paths.append(path)
        return paths


def search_table(fits: pd.DataFrame) -> pd.DataFrame:
    """Return what the search for learning rates found.

    Args:
        fits: One row per fit.

    Returns:
        One row per network and rate: ``log_nmse`` is the mean over the targets of the decimal
        logarithm of the normalised error, and ``chosen`` marks the rate with the lowest.
    """
    tried = fits[fits["stage"] == SEARCH]
    # A fit that was never finite counts as one that predicts the mean.
    errors = tried["nmse"].fillna(1.0).clip(lower=np.finfo(float).tiny)
    found = tried.assign(log_nmse=np.log10(errors)).groupby(["network", "rate"], sort=False)
    means = found["log_nmse"].mean().reset_index()
    means["chosen"] = means.index.isin(means.groupby("network")["log_nmse"].idxmin())
    return means


def _median_of_all(values: pd.Series) -> float:
    """The median with those counted that never came so far, if it is one that did."""
    median = float(values.fillna(math.inf).median())
    return median if math.isfinite(median) else math.nan


def _save(picture: Figure, file: BinaryIO) -> None:
    picture.savefig(file, format="png")
