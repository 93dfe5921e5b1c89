"""Files of a comparison, and what is read from them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from sizeless.study.fitting.fit import Fit, Moment
from sizeless.study.fitting.result import KernelFitting, search_table
from sizeless.study.fitting.store import COLUMNS, FINAL, SEARCH, Job, Store, StoreError
from sizeless.study.fitting.targets import target

SETTINGS = {"size": 5, "steps": 10}


def made(wanted, mse, close_step=None, steps=10):
    """A fit of a given error."""
    noise = np.random.default_rng(0).normal(size=wanted.values.shape)
    values = wanted.values + noise * np.sqrt(mse / np.mean(noise**2))
    shape = (len(values), *(4 * (n - 1) + 1 for n in values.shape[1:]))
    fine = np.random.default_rng(1).normal(size=shape)
    close = None if close_step is None else Moment(close_step, 0.5, mse)
    curve = (Moment(0, 0.0, 1.0), Moment(steps, 1.0, mse))
    return Fit(values, fine, mse, curve, close, steps, 1.0, 7, 3.5)


@pytest.fixture
def wanted():
    return target("gabor-4", 5)


@pytest.fixture
def store(tmp_path, wanted):
    """Three seeds of a network, and one of another."""
    begun = Store.begin(tmp_path / "fits", SETTINGS, resume=False)
    v = wanted.variance
    for seed, (error, step) in enumerate([(1e-3 * v, 4), (2e-3 * v, 6), (0.5 * v, None)]):
        job = Job(FINAL, "gabor-4", "magnet", seed, 0.01)
        begun.add(job, made(wanted, error, step), wanted, 32)
    begun.add(Job(FINAL, "gabor-4", "siren", 0, 0.03), made(wanted, 0.2 * v), wanted, 32)
    begun.add(Job(FINAL, "gabor-4", "njet", 0, 0.0), made(wanted, 0.7 * v), wanted, None)
    return begun


def test_tables_have_the_columns_they_should(store):
    names = {path.name for path in store.folder.iterdir()}
    assert names == {"fits.csv", "curves.csv", "spectra.csv", "kernels.npz", "settings.json"}
    for name, columns in COLUMNS.items():
        assert list(pd.read_csv(store.folder / f"{name}.csv").columns) == columns
    fits = pd.read_csv(store.folder / "fits.csv", dtype=str)
    assert fits["close_step"].tolist()[:2] == ["4", "6"]
    assert fits["seed"].tolist() == ["0", "1", "2", "0", "0"]
    assert len(pd.read_csv(store.folder / "curves.csv")) == 10


def test_what_is_read_is_what_was_kept(store):
    again = Store.read(store.folder)
    for name in COLUMNS:
        pd.testing.assert_frame_equal(getattr(again, name), getattr(store, name), rtol=1e-5)
    assert set(again.kernels) == {f"gabor-4/{n}" for n in ("magnet", "siren", "njet", "target")}
    for name, values in store.kernels.items():
        np.testing.assert_array_equal(again.kernels[name], values)


def test_a_store_knows_what_it_holds(store):
    again = Store.read(store.folder)
    for held in (store, again):
        assert held.holds(Job(FINAL, "gabor-4", "magnet", 2, 0.01))
        assert not held.holds(Job(FINAL, "gabor-4", "magnet", 3, 0.01))
        assert not held.holds(Job(SEARCH, "gabor-4", "magnet", 2, 0.01))
        assert not held.holds(Job(FINAL, "gabor-4", "magnet", 2, 0.03))
    assert not Store(store.folder).holds(Job(FINAL, "gabor-4", "magnet", 2, 0.01))


def test_only_the_first_seed_is_pictured(store, wanted):
    first = made(wanted, 1e-3 * wanted.variance).values
    np.testing.assert_array_equal(store.kernels["gabor-4/magnet"], first)
    assert store.spectra.groupby("network").size().to_dict() == dict.fromkeys(
        ("magnet", "njet", "siren", "target"), 9
    )


def test_curves_of_fits_that_were_not_finished_are_dropped(store):
    table = pd.read_csv(store.folder / "fits.csv")
    table.iloc[:-1].to_csv(store.folder / "fits.csv", index=False)
    again = Store.read(store.folder)
    assert len(again.curves) == 8
    assert set(again.curves["network"]) == {"magnet", "siren"}


def test_a_folder_is_gone_on_with_only_when_asked(store):
    with pytest.raises(StoreError, match="holds fits: add --resume"):
        Store.begin(store.folder, SETTINGS, resume=False)
    assert len(Store.begin(store.folder, SETTINGS, resume=True).fits) == 5


def test_other_settings_are_refused(store):
    with pytest.raises(StoreError, match="begun with steps 10, now it is 20"):
        Store.begin(store.folder, {**SETTINGS, "steps": 20}, resume=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("fits.csv", "a,b\n1,2\n", "other columns"),
        ("fits.csv", "", "damaged"),
        ("curves.csv", ",".join(COLUMNS["curves"]) + "\nfit,a,b,0,x,0,0,0\n", "damaged"),
        ("kernels.npz", "no archive", "damaged"),
        ("settings.json", "{", "cannot be read"),
    ],
)
def test_damaged_files_are_named(store, name, content, message):
    (store.folder / name).write_text(content)
    with pytest.raises(StoreError, match=f"{name.replace('.', '[.]')}.* {message}"):
        KernelFitting.read(store.folder)


def test_a_folder_without_fits_is_refused(tmp_path):
    with pytest.raises(StoreError, match=r"settings\.json cannot be read"):
        KernelFitting.read(tmp_path)
    Store.begin(tmp_path, SETTINGS, resume=False)
    with pytest.raises(StoreError, match="holds no finished fit"):
        KernelFitting.read(tmp_path)


def test_the_table_has_medians_and_the_best(store):
    table = KernelFitting.read(store.folder).table().set_index("network")
    assert table.loc["magnet", "seeds"] == 3
    assert table.loc["magnet", "nmse"] == pytest.approx(2e-3, rel=1e-4)
    assert table.loc["magnet", "nmse_low"] == pytest.approx(1e-3, rel=1e-4)
    assert table.loc["magnet", "nmse_high"] == pytest.approx(0.5, rel=1e-4)
    assert table.loc["magnet", "close_step"] == 6, "the median counts the one that never came close"
    assert np.isnan(table.loc["siren", "close_step"])
    assert table["best"].to_dict() == {"magnet": True, "siren": False, "njet": False}


def test_a_rate_is_chosen_by_the_mean_over_the_targets(tmp_path):
    store = Store.begin(tmp_path, SETTINGS, resume=False)
    errors = {0.01: (1e-4, 0.9), 0.001: (1e-2, 1e-3)}
    for rate, pair in errors.items():
        for name, error in zip(("gabor-1", "noise"), pair, strict=True):
            wanted = target(name, 5)
            job = Job(SEARCH, name, "mlp", 1000, rate)
            store.add(job, made(wanted, error * wanted.variance), wanted, 4)
    found = search_table(store.fits).set_index("rate")
    assert found["chosen"].to_dict() == {0.01: False, 0.001: True}
    assert found.loc[0.001, "log_nmse"] == pytest.approx(-2.5)
    assert store.kernels == {}


def test_results_are_saved_with_their_pictures(store, tmp_path):
    result = KernelFitting.read(store.folder)
    paths = result.save(tmp_path / "saved")
    pictures = [path for path in paths if path.suffix == ".png"]
    assert len(pictures) == 4
    for path in pictures:
        assert imread(path).std() > 0.02, f"{path.name} is empty"
    kept = pd.read_csv(tmp_path / "saved" / "kernel_fitting.csv")
    assert list(kept.columns) == list(result.table().columns)
    assert "MAGNet 1" in result.caption()


def test_networks_keep_their_order_when_some_are_added(store, wanted):
    store.add(Job(FINAL, "gabor-4", "gabor", 0, 0.03), made(wanted, 0.1), wanted, 32)
    table = KernelFitting.read(store.folder).table()
    assert table["network"].tolist() == ["magnet", "gabor", "siren", "njet"]
    assert table["seeds"].tolist() == [3, 1, 1, 1]
