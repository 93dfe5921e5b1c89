"""The ``.ts`` format of the UCR and UEA archives of time series."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

MISSING = "?"


class Header(NamedTuple):
    """What the head of a file says.

    Attributes:
        classes: Names of the classes, in the order of their numbers where they are numbers.
        length: Length of every series; None if the file does not say, or they differ.
    """

    classes: tuple[str, ...]
    length: int | None


class Case(NamedTuple):
    """One labelled series.

    Attributes:
        channels: The values of each channel; missing ones are NaN.
        target: Number of its class.
    """

    channels: tuple[Tensor, ...]
    target: int


def read_header(path: Path) -> Header:
    """Return what the head of a ``.ts`` file says.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is no ``.ts`` file of labelled series without time stamps.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        return _header(path, enumerate(file, 1))


def read_ts(path: Path) -> tuple[Header, list[Case]]:
    """Return the head and all cases of a ``.ts`` file.

    A head of lines with ``@``, up to ``@data``, is followed by a line for each case: channels with
    ``:`` between them and after the last, values with ``,`` between them, then the class. Lines
    with ``#`` or ``%`` are comments. Missing values are ``?`` or ``NaN``. Series may differ in
    length, also the channels of one, if the head does not say otherwise.

    Args:
        path: The file.

    Raises:
        ValueError: If the file is of another format or cut off; the message names the line.

    Source: .ts file format, https://www.aeon-toolkit.org/en/stable/api_reference/data_format.html.
    """
    with path.open(encoding="utf-8", errors="replace") as file:
        lines = enumerate(file, 1)
        header = _header(path, lines)
        numbers = {name: number for number, name in enumerate(header.classes)}
        cases = [
            _case(path, number, line, header, numbers) for number, line in lines if line.strip()
        ]
    counts = {len(case.channels) for case in cases}
    if len(counts) != 1:
        raise ValueError(
            f"{path} must hold series of one number of channels, got {sorted(counts) or 'none'}: "
            "get it anew"
        )
    return header, cases


def padded(cases: list[Case], length: int) -> Tensor:
    """Return series as one tensor ``(N, C, length)``: gaps and ends hold the last value before.

    Gaps at the beginning hold the first known value; a channel with none at all is 0.

    Args:
        cases: The series.
        length: Length to have, at least that of the longest channel.

    Examples:
        >>> gaps = torch.tensor([float("nan"), 1.0, float("nan"), 2.0])
        >>> padded([Case((gaps,), 0)], 6).tolist()
        [[[1.0, 1.0, 1.0, 2.0, 2.0, 2.0]]]
    """
    return torch.stack(
        [torch.stack([_filled(channel, length) for channel in case.channels]) for case in cases]
    )


def _filled(values: Tensor, length: int) -> Tensor:
    known = (~values.isnan()).nonzero().flatten()
    if len(known) == 0:
        return torch.zeros(length)
    before = torch.searchsorted(known, torch.arange(length), right=True) - 1
    return values[known[before.clamp(min=0)]]


def _header(path: Path, lines: Iterator[tuple[int, str]]) -> Header:
    tags: dict[str, list[str]] = {}
    for _, line in lines:
        text = line.strip()
        if not text or text[0] in "#%":
            continue
        name, *values = text.split()
        if not name.startswith("@"):
            break
        tags[name.lower()] = values
        if name.lower() == "@data":
            return _checked(path, tags)
    raise ValueError(
        f"{path} is no .ts file: it must have a head of lines that begin with @, the last of which "
        "is @data"
    )


def _checked(path: Path, tags: dict[str, list[str]]) -> Header:
    is_labelled, *classes = tags.get("@classlabel", ["false"])
    if is_labelled.lower() != "true" or len(classes) < 2:
        raise ValueError(
            f"{path} must name its classes, as in '@classLabel true 1 2': it is no set for "
            "classification"
        )
    if tags.get("@timestamps", ["false"])[0].lower() == "true":
        raise ValueError(f"{path} has time stamps, which are not supported: remove them")
    length = tags.get("@serieslength")
    has_one = tags.get("@equallength", ["true" if length else "false"])[0].lower() == "true"
    return Header(
        tuple(sorted(classes, key=_order)), int(length[0]) if length and has_one else None
    )


def _order(name: str) -> tuple[float, str]:
    try:
        return float(name), name
    except ValueError:
        return float("inf"), name


def _case(path: Path, number: int, line: str, header: Header, numbers: dict[str, int]) -> Case:
    *channels, label = (part.strip() for part in line.split(":"))
    if not channels or label not in numbers:
        raise ValueError(
            f"line {number} of {path} must end with one of the classes {', '.join(numbers)}, got "
            f"{label[-40:]!r}: get the file anew"
        )
    try:
        values = tuple(
            torch.tensor([float(value) for value in channel.replace(MISSING, "nan").split(",")])
            for channel in channels
        )
    except ValueError as error:
        raise ValueError(
            f"line {number} of {path} must hold numbers with commas between them: {error}"
        ) from error
    lengths = {len(channel) for channel in values}
    if header.length is not None and lengths != {header.length}:
        raise ValueError(
            f"line {number} of {path} must have {header.length} values in each channel, as the "
            f"head says, got {sorted(lengths)}: get the file anew"
        )
    return Case(values, numbers[label])
