"""``sizeless fit-kernel``, from its arguments to its files."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from sizeless.study.fitting import command
from sizeless.study.fitting.command import fit_kernel
from sizeless.study.fitting.request import FittingError, parse
from sizeless.study.fitting.result import KernelFitting

TINY = ["--size", "5", "--steps", "4", "--hidden", "4", "--rates", "0.01", "0.1", "--seeds", "2"]


@pytest.fixture
def no_pictures(monkeypatch):
    """Spare the time that pictures take."""
    monkeypatch.setattr(KernelFitting, "save", lambda *_: [])


def tiny(folder, *args):
    return [*TINY, "--out", str(folder), *args]


def without_times(folder):
    table = pd.read_csv(folder / "fits.csv")
    return table.drop(columns=["seconds", "close_seconds"])


def test_one_command_searches_fits_and_reports(tmp_path, capsys):
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    fit_kernel(tiny(tmp_path / "fits", "--targets", "edges", "--networks", "gabor", "mlp", "njet"))
    assert torch.get_num_threads() == threads
    assert torch.equal(state, torch.get_rng_state())
    printed = capsys.readouterr()
    assert "Error at the taps / variance (* lowest)" in printed.out
    assert "seconds per fit" in printed.out
    assert printed.err == ""

    fits = pd.read_csv(tmp_path / "fits" / "fits.csv")
    final, searches = (fits[fits["stage"] == stage] for stage in ("fit", "search"))
    assert len(searches) == 2 * 2
    assert set(searches["seed"]) == {1000}
    assert set(searches["network"]) == {"gabor", "mlp"}
    assert final.groupby("network")["seed"].nunique().to_dict() == {"gabor": 2, "mlp": 2, "njet": 1}
    for network, tried in searches.groupby("network"):
        best = tried.loc[tried["nmse"].idxmin(), "rate"]
        assert set(final.loc[final["network"] == network, "rate"]) == {best}
    for name in ("", "_curves", "_spectra", "_kernels"):
        assert imread(tmp_path / "fits" / f"kernel_fitting{name}.png").std() > 0.02


@pytest.mark.slow
def test_all_networks_are_fitted_to_all_targets(tmp_path):
    fit_kernel(["--size", "5", "--steps", "3", "--hidden", "4", "--out", str(tmp_path / "fits")])
    fits = pd.read_csv(tmp_path / "fits" / "fits.csv")
    final = fits[(fits["stage"] == "fit") & (fits["network"] != "njet")]
    seeds = final.groupby(["target", "network"])["seed"].nunique()
    assert len(seeds) == 10 * 5
    assert (seeds == 3).all()
    assert (final.groupby("network")["rate"].nunique() == 1).all()


@pytest.mark.usefixtures("no_pictures")
def test_fits_do_not_depend_on_what_else_is_fitted(tmp_path):
    fit_kernel(tiny(tmp_path / "both", "--targets", "noise", "blobs", "--networks", "mlp", "gabor"))
    fit_kernel(tiny(tmp_path / "one", "--targets", "blobs", "--networks", "gabor"))
    key = ["stage", "target", "network", "seed", "rate"]
    both, one = (without_times(tmp_path / name).set_index(key) for name in ("both", "one"))
    searches = one.loc[["search"]]
    pd.testing.assert_frame_equal(both.loc[searches.index], searches)


@pytest.mark.usefixtures("no_pictures")
def test_an_interrupted_run_goes_on(tmp_path, monkeypatch):
    args = ["--targets", "noise", "gabor-4", "--networks", "magnet", "njet"]
    fit_kernel(tiny(tmp_path / "whole", *args))
    real, calls = command.fit, []

    def stops(*given, **options):
        calls.append(given)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return real(*given, **options)

    monkeypatch.setattr(command, "fit", stops)
    with pytest.raises(FittingError, match=r"interrupted; what was fitted is in .*--resume"):
        fit_kernel(tiny(tmp_path / "stopped", *args))
    assert len(pd.read_csv(tmp_path / "stopped" / "fits.csv")) == 5
    fit_kernel(tiny(tmp_path / "stopped", *args, "--resume"))
    assert len(calls) == 6 + 3, "nothing is fitted twice"
    pd.testing.assert_frame_equal(
        without_times(tmp_path / "stopped"), without_times(tmp_path / "whole"), rtol=1e-5
    )


@pytest.mark.usefixtures("no_pictures")
def test_seeds_and_networks_are_added_to_what_is_there(tmp_path):
    args = ["--targets", "blobs", "--networks", "mlp"]
    fit_kernel(tiny(tmp_path / "fits", *args))
    fit_kernel(tiny(tmp_path / "fits", *args, "siren", "--seeds", "3", "--resume"))
    table = KernelFitting.read(tmp_path / "fits").table().set_index("network")
    assert table["seeds"].to_dict() == {"mlp": 3, "siren": 3}


@pytest.mark.usefixtures("no_pictures")
def test_parameters_are_matched(tmp_path):
    fit_kernel(
        tiny(
            tmp_path / "fits",
            *("--targets", "noise", "--match", "parameters", "--seeds", "1", "--hidden", "16"),
            *("--networks", "magnet", "gabor", "fourier", "siren", "mlp"),
        )
    )
    table = KernelFitting.read(tmp_path / "fits").table()
    assert table["parameters"].max() < 1.1 * table["parameters"].min()
    assert table.set_index("network").loc["magnet", "hidden"] == 16
    assert table["hidden"].nunique() > 2


@pytest.mark.usefixtures("no_pictures")
def test_one_rate_needs_no_search(tmp_path):
    args = ["--targets", "noise", "--networks", "mlp", "--rates", "0.02"]
    fit_kernel(tiny(tmp_path / "fits", *args))
    fits = pd.read_csv(tmp_path / "fits" / "fits.csv")
    assert set(fits["stage"]) == {"fit"}
    assert set(fits["rate"]) == {0.02}


@pytest.mark.usefixtures("no_pictures")
def test_a_kernel_of_ones_own_is_fitted(tmp_path):
    np.save(tmp_path / "mine.npy", np.random.default_rng(0).normal(size=(2, 7, 7)))
    path = str(tmp_path / "mine.npy")
    fit_kernel(tiny(tmp_path / "fits", "--targets", path, "--networks", "mlp", "njet"))
    table = KernelFitting.read(tmp_path / "fits").table()
    assert set(table["target"]) == {"mine"}
    assert set(table["taps"]) == {7}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--targets", "gabor-3"], "--targets: target must be one of gabor-1"),
        (["--targets", "none.npy"], "--targets: none.npy cannot be read"),
        (["--targets", "noise", "noise"], "--targets holds 'noise' twice"),
        (["--networks", "fuorier"], "--networks must be of magnet, .* got 'fuorier'"),
        (["--networks", "mlp", "mlp"], "--networks holds 'mlp' twice"),
        (["--steps", "-1"], "--steps must be at least 0, got -1"),
        (["--seeds", "0"], "--seeds must be at least 1, got 0"),
        (["--hidden", "0"], "--hidden must be at least 1, got 0"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["--size", "8"], "size must be odd.* got 8"),
        (["--size", "many"], "--size: invalid int value: 'many'"),
        (["--rates", "0"], "--rates must be positive, got 0.0"),
        (["--rates", "nan"], "--rates must be positive, got nan"),
        (["--scale", "-1"], "--scale must be positive, got -1.0"),
        (["--match", "weight"], "--match: invalid choice: 'weight'"),
    ],
)
def test_wrong_arguments_are_refused_in_one_line(args, message):
    with pytest.raises(FittingError, match=message) as caught:
        parse(args)
    assert "\n" not in str(caught.value)


def test_unknown_arguments_are_refused():
    with pytest.raises(FittingError, match="--step is unknown; sizeless fit-kernel --help"):
        parse(["--step", "3"])


@pytest.mark.usefixtures("no_pictures")
def test_a_folder_with_fits_is_not_overwritten(tmp_path):
    args = tiny(tmp_path / "fits", "--targets", "noise", "--networks", "mlp")
    fit_kernel(args)
    with pytest.raises(FittingError, match="holds fits: add --resume"):
        fit_kernel(args)
    with pytest.raises(FittingError, match="begun with steps 4, now it is 5"):
        fit_kernel([*args, "--resume", "--steps", "5"])
    (tmp_path / "file").write_text("")
    with pytest.raises(FittingError, match="is a file: name a folder"):
        fit_kernel(tiny(tmp_path / "file"))


def test_help_names_targets_and_networks(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse(["--help"])
    assert stopped.value.code == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    for word in ("sizeless fit-kernel", "gabor-64", "chirp", "magnet", "njet", "--resume"):
        assert word in text
