"""Pictures of kernels, cost and learning curves."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from torch import nn

import sizeless
from sizeless.study import gallery, layer_costs, layer_kernels, learning_curves


def drawn(figure):
    """The picture as numbers."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba(), dtype=float) / 255


def pictures(model, *shape):
    return gallery(layer_kernels(model, torch.randn(1, *shape)), model)


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (sizeless.models.FlexTCN(1, 10, kernel_size=40, width=4), (1, 40)),
        (nn.Sequential(sizeless.FlexConv2d(1, 4, 17), sizeless.NIFFConv2d(4, 4)), (1, 16, 12)),
        (sizeless.FlexConv3d(1, 2, 5), (1, 8, 8, 8)),
        (nn.Conv2d(1, 20, 3), (1, 8, 8)),
        (nn.Sequential(*(nn.Conv1d(1, 1, 3, padding=1) for _ in range(20))), (1, 8)),
    ],
    ids=["1d causal", "2d", "3d", "plain", "20 layers"],
)
def test_kernels_are_drawn(model, shape):
    shown = pictures(model, *shape)
    image = drawn(shown.figure())
    assert image.std() > 0.02, "the picture is empty"
    assert len(shown.table()) == len(shown.layers)
    assert image.shape[0] < 16 * 1.25 * 120 + 1, "rows are left out of a picture that is too high"


def test_windows_are_those_of_the_layers():
    model = nn.Sequential(sizeless.FlexConv2d(1, 1, 17, init_size=(5, 9), dilation=2))
    window = pictures(model, 1, 40, 40).windows["0"]
    described = model[0].describe_size()
    assert window.sigma == tuple(2 * sigma for sigma in described.window)
    assert window.center == (0, 0)


def test_the_table_says_what_is_shown():
    weight = torch.zeros(10, 1, 3, 3)
    weight[:, 0, 1, 1] = torch.arange(1.0, 11.0)
    layer = nn.Conv2d(1, 10, 3, bias=False)
    layer.weight.data.copy_(weight)
    (row,) = pictures(layer, 1, 8, 8).table().to_dict("records")
    assert row["kernels"] == row["measured"] == 10
    assert row["mean norm"] == pytest.approx(5.5)
    assert row["largest norm"] == 10
    energies = np.arange(1.0, 11.0) ** 2
    assert row["energy shown"] == pytest.approx(energies[-7:].sum() / energies.sum())
    assert math.isnan(row["unused energy"])


def test_no_layers():
    with pytest.raises(ValueError, match="layers must hold at least one"):
        gallery([])


def test_costs_are_those_of_the_library():
    model = sizeless.models.FlexNet(1, 10, kernel_size=9, widths=[3])
    samples = torch.randn(4, 1, 8, 8)
    found = layer_costs(model, samples)
    whole = sizeless.cost(model, samples[:1])
    table = found.table()
    assert table["MMACs"].sum() == pytest.approx(whole.macs.item() / 1e6, rel=1e-5)
    assert table["MiB"].sum() == pytest.approx(whole.bytes.item() / 2**20, rel=1e-5)
    assert table["share of MACs"].sum() == pytest.approx(1)
    assert f"{table['MMACs'].sum():,.4g} million" in found.caption()
    assert drawn(found.figure()).std() > 0.02


def log(folder, version, *lines):
    file = folder / "logs" / "csv" / f"version_{version}" / "metrics.csv"
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(["epoch,step,train/loss,val/loss,val/accuracy", *lines, ""]))


def test_curves_of_all_parts_of_a_run(tmp_path):
    log(tmp_path, 0, "0,1,2.0,,", "0,3,1.0,,", "0,4,,0.9,0.5", "1,6,0.8,,", "1,8,,0.7,0.6")
    log(tmp_path, 10, "2,9,0.4,,", "2,12,,0.5,0.75")
    log(tmp_path, 9, "1,8,,0.8,0.65")
    curves = learning_curves(tmp_path)
    assert curves.table()["epoch"].tolist() == [1, 2, 3]
    assert curves.table()["train/loss"].tolist() == [1.5, 0.8, 0.4]
    assert curves.table()["val/accuracy"].tolist() == [0.5, 0.65, 0.75]
    assert "val/accuracy 0.75" in curves.caption()
    assert drawn(curves.figure()).std() > 0.02


def test_a_run_without_logs(tmp_path):
    with pytest.raises(ValueError, match="has no log of loss or accuracy"):
        learning_curves(tmp_path)
    file = tmp_path / "logs" / "csv" / "version_0" / "metrics.csv"
    file.parent.mkdir(parents=True)
    file.write_text("")
    with pytest.raises(ValueError, match="has no log of loss or accuracy"):
        learning_curves(tmp_path)


def test_a_caption_says_what_is_drawn():
    curves = pictures(nn.Conv1d(1, 2, 3), 1, 9).caption()
    assert "curve" in curves
    assert not any(word in curves for word in ("red", "dot", "dashed", "window"))
    assert "window" in pictures(sizeless.FlexConv1d(1, 2, 5), 1, 9).caption()
    images = pictures(nn.Conv2d(1, 2, 3), 1, 9, 9).caption()
    assert "red" in images
    assert "dashed" not in images
    assert "dashed" in pictures(sizeless.FlexConv2d(1, 2, 5), 1, 9, 9).caption()
    assert "middle slice" in pictures(nn.Conv3d(1, 2, 3), 1, 9, 9, 9).caption()


def test_cost_of_one_sample_of_several_inputs():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3, padding=1)

        def forward(self, one, other, scale):
            return self.layer(one) + self.layer(other) * scale

    one, scale = torch.zeros(4, 1, 10, 10), torch.ones(2, 1, 1)
    table = layer_costs(Two(), (one, one, scale)).table()
    assert table["MMACs"].sum() == pytest.approx(2 * 0.0018)
