"""Rows as a run would give them."""

from __future__ import annotations

from sizeless.bench.rows import Row

ROLES = {
    "sizeless": "ours",
    "sizeless again": "again",
    "sizeless fft": "forced",
    "torch": "baseline",
    "torch channels_last": "layout",
    "textbook fft": "baseline",
    "julius": "peer",
    "bare transforms": "limit",
}


def point(
    kernel: int, kind: str = "2-D dense", mode: str = "training", **milliseconds: float
) -> list[Row]:
    """Rows of one point of the suite ``convolve``, by the time of each contender."""
    times = {n if n in ROLES else n.replace("_", " "): v for n, v in milliseconds.items()}
    ours = times["sizeless"]
    return [
        Row(
            "convolve",
            kind,
            f"{kind} k{kernel}",
            mode,
            "1x8x64x64",
            "contiguous",
            kernel,
            name,
            ROLES.get(name, "baseline"),
            "ok",
            median_ms=value,
            ours_over_this=ours / value,
        )
        for name, value in times.items()
    ]


def layer(
    ratio: float | None,
    bar: float | None = None,
    memory: float | None = None,
    memory_bar: float | None = None,
    *,
    kind: str = "FlexConv",
    case: str = "a layer",
    mode: str = "training",
) -> list[Row]:
    """Rows of ours and of one alternative in the suite ``layers``."""
    place = "layers", kind, case, mode, "1x8x64x64", "contiguous", None
    theirs = None if ratio is None else 10.0 / ratio
    status = "failed" if ratio is None else "ok"
    return [
        Row(*place, "sizeless", "ours", "ok", median_ms=10.0, ours_over_this=1.0),
        Row(
            *place,
            "textbook",
            "baseline",
            status,
            median_ms=theirs,
            ours_over_this=ratio,
            bar=bar,
            ours_memory_over_this=memory,
            memory_bar=memory_bar,
        ),
        Row(*place, "bare transforms", "limit", "ok", median_ms=1.0, ours_over_this=10.0),
    ]
