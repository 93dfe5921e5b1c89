"""What every measurement of a study returns: numbers, a picture, and files of both."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

import pandas as pd
from matplotlib.figure import Figure

from sizeless._files import write_atomically, write_text


class Result(ABC):
    """A measurement that can be read as a table, seen as a figure, and kept.

    Attributes:
        stem: Name of its files.
        title: What it is, in a few words.
    """

    stem: ClassVar[str]
    title: ClassVar[str]

    @abstractmethod
    def table(self) -> pd.DataFrame:
        """The numbers, one row per thing that was measured; units are in the docstring."""

    @abstractmethod
    def figure(self) -> Figure:
        """The picture, drawn anew at each call."""

    @abstractmethod
    def caption(self) -> str:
        """What the picture shows, in a sentence or two: its alternative text."""

    def save(self, folder: Path | str) -> list[Path]:
        """Write the numbers as ``stem.csv`` and ``stem.json`` and the picture as ``stem.png``.

        Every file is whole or not there.

        Args:
            folder: Where to; it need not exist.

        Returns:
            The files.
        """
        base, table = Path(folder) / self.stem, self.table()
        paths = [base.with_suffix(suffix) for suffix in (".csv", ".json", ".png")]
        write_text(paths[0], table.to_csv(index=False, float_format="%.6g"))
        records = json.loads(table.to_json(orient="records", double_precision=10))
        write_text(paths[1], json.dumps(records, indent=1) + "\n")
        picture = self.figure()
        write_atomically(paths[2], lambda file: picture.savefig(file, format="png"))
        return paths
