"""A page with something of everything, for tests that read it and tests that open it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sizeless.study import style
from sizeless.study.page import Card, Code, Group, Page, Picture, Section, Table, Text

LAYERS = [
    f"stages.{stage}.blocks.{block}.depthwise.conv" for stage in range(4) for block in range(6)
]


def effective_sizes():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "layer": LAYERS,
            "kind": rng.choice(["FlexConv", "NIFF"], len(LAYERS)),
            "map": [(56 // 2**stage,) * 2 for stage in range(4) for _ in range(6)],
            "kernels": rng.integers(64, 20_000, len(LAYERS)),
            "effective size": np.exp(rng.normal(1.5, 0.5, len(LAYERS))),
            "untrained": np.where(
                rng.random(len(LAYERS)) < 0.15, np.nan, rng.normal(5, 0.1, len(LAYERS))
            ),
            "p-value": 10 ** rng.uniform(-9, 0, len(LAYERS)),
            "trained": rng.random(len(LAYERS)) < 0.8,
        }
    )


def trajectories():
    figure, axes = style.panels(3)
    rng = np.random.default_rng(1)
    epochs = np.arange(31)
    for panel, (kind, unit) in zip(
        axes, [("kernel size", "taps"), ("filter extent", "samples"), ("stride", "")], strict=True
    ):
        for name, color in zip(["conv1", "conv2", "conv3", "conv4"], style.shades(4), strict=True):
            sizes = 5 + rng.uniform(0, 12) * (1 - np.exp(-epochs / 9)) + rng.normal(0, 0.15, 31)
            panel.plot(epochs, sizes, color=color, linewidth=1.6, label=name)
        panel.axhline(18, color=style.FAINT, linewidth=0.8)
        panel.axvspan(0, 3, color=style.SHADE)
        panel.set_xlabel("epoch")
        panel.set_ylabel(f"{kind} ({unit})" if unit else kind)
        panel.set_title(kind)
        style.clean(panel)
    axes[0].legend(frameon=False, fontsize=7, labelcolor=style.INK)
    return figure


def kernels():
    figure, axes = style.panels(12, columns=6, height=1.6)
    places = np.linspace(-3, 3, 21)
    x, y = np.meshgrid(places, places)
    for index, panel in enumerate(axes):
        turned = x * np.cos(index / 2) + y * np.sin(index / 2)
        values = np.exp(-(x**2 + y**2) / 3) * np.cos((1 + index / 4) * turned)
        panel.imshow(values, cmap=style.DIVERGING, vmin=-1, vmax=1, interpolation="nearest")
        panel.set_axis_off()
        panel.set_title(f"conv{index + 1}", fontsize=8, color=style.INK)
    return figure


def spectra():
    figure, (curves, share) = style.panels(2, columns=2, height=3.2)
    frequency = np.geomspace(0.01, 0.5, 60)
    for name, color, slope in zip(["stage 1", "stage 4"], style.shades(2), [2.0, 0.9], strict=True):
        curves.loglog(frequency, frequency**-slope, color=color, label=name)
    curves.loglog(
        frequency, frequency**0 * 40, color=style.CONTROL, linestyle="--", label="untrained"
    )
    curves.set_xlabel("frequency (cycles/pixel)")
    curves.set_ylabel("energy")
    curves.set_title("energy spectrum, $|F(\\nu)|^2$")
    curves.legend(frameon=False, fontsize=8, labelcolor=style.INK)
    rng = np.random.default_rng(2)
    table = rng.uniform(0, 1, (4, 5))
    mesh = share.pcolormesh(table, cmap=style.SEQUENTIAL, vmin=0, vmax=1)
    for row, column in np.ndindex(table.shape):
        value = table[row, column]
        share.text(
            column + 0.5,
            row + 0.5,
            f"{value:.2f}",
            ha="center",
            va="center",
            fontsize=8,
            color="white" if value < 0.6 else "black",
        )
    share.set_xticks(
        np.arange(5) + 0.5, ["noise", "edge", "blob", "Gabor 1", "Gabor 16"], rotation=30
    )
    share.set_yticks(np.arange(4) + 0.5, ["MAGNet", "SIREN", "Fourier", "MLP"])
    style.clean(share)
    bar = figure.colorbar(mesh, ax=share)
    bar.set_label("normalised error", fontsize=9, color=style.INK)
    bar.ax.tick_params(labelsize=8, labelcolor=style.INK, color=style.AXIS)
    bar.outline.set_visible(False)
    for panel in (curves, share):
        style.clean(panel)
    return figure


def cloud(points=3500):
    figure, (axes,) = style.panels(1, height=3.0)
    x, y = np.random.default_rng(3).normal(size=(2, points))
    axes.scatter(x, x + y, s=3, c=y, cmap=style.SEQUENTIAL, linewidth=0)
    axes.set_xlabel("size before (taps)")
    axes.set_ylabel("size after (taps)")
    style.clean(axes)
    return figure


CONFIG = """\
model:
  class_path: sizeless.models.FlexTCN
  init_args:
    in_channels: 1
    num_classes: 10
    kernel_size: 784  # the horizon
trainer:
  max_epochs: 30
  precision: 32-true
"""


def example() -> Page:
    sizes = effective_sizes()
    runs = pd.DataFrame(
        {
            "network": ["FlexTCN", "ResNet-18 & DiffStride", "<script>alert(1)</script>"],
            "accuracy": [0.9871, 0.9342, 0.9],
            "parameters": [241_000, 11_173_962, 1_024],
            "gain": [0.012, -0.003, 0.0],
        }
    )
    return Page(
        title="FlexTCN on sequential MNIST",
        subtitle="How large do kernels need to be? 30 epochs, three learned sizes, one seed.",
        made="Made by sizeless 0.7.0 on 22 November 2026, torch 2.13, one thread",
        cards=[
            Card("Test accuracy", "98.7 %", "96.1 % untrained sizes"),
            Card("Median effective size", 7.42, "taps, of 784 possible"),
            Card("Parameters", 241_310),
            Card("Multiply-accumulates", "1.92 G", "for one input of `1 × 784`"),
            Card("Network", "sizeless.models.FlexTCN"),
            Card("Share that no map can feel", None, "not measured"),
        ],
        sections=[
            Section(
                "Learned sizes",
                [
                    Picture(trajectories(), "Sizes of four layers rise over 30 epochs.", TRACKS),
                    Text(FINDINGS),
                ],
                lead="Every kernel grew in the first ten epochs and then stayed as it was.",
            ),
            Section(
                "Effective size of every layer",
                [
                    Table(
                        sizes,
                        "Effective size of the kernels of each layer, trained and not; the p-value "
                        "is that of a rank test between the two.",
                        units={"effective size": "taps", "untrained": "taps", "map": "pixels"},
                    ),
                    Table(runs, "Runs.", formats={"accuracy": ".2%"}),
                ],
                lead="Half of all layers use fewer than six taps.",
            ),
            Section(
                "Kernels",
                [
                    Picture(
                        kernels(), "Twelve oriented kernels.", "The strongest kernel of each layer."
                    )
                ],
            ),
            Section(
                "Spectra",
                [Picture(spectra(), "Energy falls with frequency.", "Left: energy. Right: error.")],
            ),
            Section(
                "Before and after", [Picture(cloud(), "Points along a diagonal.", "3500 kernels.")]
            ),
            Section(
                "Configuration",
                [
                    Group("Configuration of the run", [Code(CONFIG, "yaml", "config.yaml")]),
                    Group(
                        "Environment",
                        [
                            Table(
                                pd.DataFrame({"package": ["torch"], "version": ["2.13.0"]}),
                                "Packages.",
                            )
                        ],
                    ),
                ],
            ),
        ],
    )


TRACKS = (
    "Learned sizes against the epoch. Faint line: the limit. Shaded: the first three epochs, in "
    "which sizes are frozen."
)
FINDINGS = """\
The layer `stages.0.blocks.0.depthwise.conv` grew most, from 5 to 16.8 taps.

- Kernels of deeper layers are larger, in samples of their own map.
- In pixels of the input the order is the same.
"""


@pytest.fixture(scope="session")
def rich_page() -> Page:
    return example()
