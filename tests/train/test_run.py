from __future__ import annotations

import json
import shutil

import pytest
import torch

import sizeless
from sizeless.train import config
from sizeless.train.callbacks import SizeLog
from sizeless.train.folder import RunFolder
from sizeless.train.run import RunError, fit
from sizeless.train.run import test as rerun_test
from sizeless.trajectories import read_points

from .data.tiny_images import write_idx

SEQUENCES = """\
trainer:
  accelerator: cpu
  enable_progress_bar: false
  max_epochs: 1
  limit_train_batches: 1
  limit_val_batches: 1
  limit_test_batches: 1
  logger: false
model:
  network:
    class_path: sizeless.models.FlexTCN
    init_args: {in_channels: 1, num_classes: 10, kernel_size: 49, blocks: 1, width: 3}
data:
  class_path: sizeless.train.data.MNIST5000
  init_args: {sequential: true, size: 7, batch_size: 16}
"""


def states(folder, name="last"):
    return torch.load(folder / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(recipe, tmp_path):
    """Fit the small recipe into a folder of the given name."""

    def start(name, *args):
        return fit(["--config", str(recipe), "--out", str(tmp_path / name), *args])

    return start


def test_a_run_leaves_its_files(run, tmp_path):
    outcome = run("a", "--seed_everything", "3", "--trainer.max_epochs", "1")
    folder = tmp_path / "a"
    assert {path.name for path in folder.iterdir()} == {
        "config.yaml", "environment.json", "metrics.json", "sizes.csv", "costs.csv", "checkpoints",
        "logs",
    }  # fmt: skip
    assert {path.name for path in (folder / "checkpoints").iterdir()} == {"best.ckpt", "last.ckpt"}
    assert {path.name for path in (folder / "logs").iterdir()} == {"csv", "tensorboard"}
    assert json.loads((folder / "environment.json").read_text())["packages"]["torch"]
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics == outcome.metrics
    assert {"test/accuracy", "test/loss", "val/accuracy", "val/loss", "seconds"} <= metrics.keys()
    assert (metrics["seed"], metrics["epoch"], metrics["epochs"]) == (3, 1, 1)
    samples = torch.zeros(1, 1, 8, 8)
    assert metrics["macs"] == float(sizeless.cost(outcome.network, samples).macs.detach())
    config = (folder / "config.yaml").read_text()
    assert "max_epochs: 1" in config
    assert "seed_everything: 3" in config
    assert "\nout:" not in config
    points = read_points(folder / "sizes.csv")
    assert [(point.epoch, point.step) for point in points if point.name == "stem"] == [
        (0, 0), (0, 0), (1, 2), (1, 2),
    ]  # fmt: skip
    costs = [line.split(",") for line in (folder / "costs.csv").read_text().splitlines()]
    assert [(epoch, step) for epoch, step, _ in costs] == [
        ("epoch", "step"),
        ("0", "0"),
        ("1", "2"),
    ]
    assert float(costs[-1][2]) == metrics["macs"]


def test_equal_seeds_give_equal_runs_and_others_do_not(run):
    short = ("--trainer.max_epochs", "1")
    one, two = run("a", *short).metrics, run("b", *short).metrics
    other = run("c", "--seed_everything=1", *short).metrics
    del one["seconds"], two["seconds"]
    assert one == two
    assert one["test/loss"] != other["test/loss"]


def test_the_chosen_checkpoint_is_the_one_that_is_tested(run, tmp_path):
    outcome = run("a")
    best = states(tmp_path / "a", "best")
    for name, value in outcome.network.state_dict().items():
        torch.testing.assert_close(value, best[f"network.{name}"], rtol=0, atol=0)


def test_a_resumed_run_equals_an_uninterrupted_one(run, tmp_path, power_cut):
    whole = run("whole").metrics
    power_cut(1)
    with pytest.raises(OSError, match="power cut"):
        run("cut")
    # The lost epoch left rows that the checkpoint does not know.
    table = tmp_path / "cut" / "sizes.csv"
    lost = table.read_text().splitlines()[-1].replace("1,2,", "2,4,")
    table.write_text(table.read_text() + lost + "\n")
    power_cut(-1)
    resumed = fit(["--out", str(tmp_path / "cut"), "--resume"]).metrics
    for metrics in (whole, resumed):
        metrics.pop("seconds")
    assert resumed == whole
    assert table.read_text() == (tmp_path / "whole" / "sizes.csv").read_text()
    costs = [(tmp_path / name / "costs.csv").read_text() for name in ("cut", "whole")]
    assert costs[0] == costs[1]
    for name, value in states(tmp_path / "whole").items():
        torch.testing.assert_close(states(tmp_path / "cut")[name], value, rtol=0, atol=0)


def test_a_finished_run_can_be_moved_and_trained_on(run, tmp_path):
    run("a", "--trainer.max_epochs", "1")
    shutil.move(tmp_path / "a", tmp_path / "b")
    outcome = run("b", "--resume")
    assert outcome.metrics["epochs"] == 2
    points = read_points(tmp_path / "b" / "sizes.csv")
    assert sorted({point.epoch for point in points}) == [0, 1, 2]
    assert len({(p.step, p.name, p.axis) for p in points}) == len(points)
    assert not (tmp_path / "a").exists()


def test_more_epochs_go_on_with_the_rate_of_their_schedule(run, monkeypatch):
    rates = []

    def note(self, trainer, *rest):
        rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    monkeypatch.setattr(SizeLog, "on_train_batch_start", note)
    run("a", "--trainer.max_epochs", "1", "--model.warmup", "0")
    run("a", "--resume", "--trainer.max_epochs", "2", "--model.warmup", "0")
    assert rates == pytest.approx([0.01, 0.005, 0.005, 0.00146447], rel=1e-4)


def test_resume_without_a_run_starts_one(run):
    assert run("a", "--resume", "--trainer.max_epochs", "1").metrics["epochs"] == 1


def test_a_run_is_not_overwritten(run, tmp_path):
    run("a", "--trainer.max_epochs", "1")
    before = contents(tmp_path / "a")
    with pytest.raises(RunError, match=r"already holds a run: add --resume .* or name another"):
        run("a")
    assert contents(tmp_path / "a") == before


def test_resuming_with_another_network_loses_nothing(run, tmp_path):
    run("a", "--trainer.max_epochs", "1")
    before = contents(tmp_path / "a")
    with pytest.raises(RunError, match=r"last\.ckpt does not fit the network"):
        run("a", "--resume", "--model.network.init_args.widths", "[5]")
    assert contents(tmp_path / "a") == before


def test_a_run_can_be_tested_again(run, tmp_path):
    metrics = run("a", "--trainer.max_epochs", "1").metrics
    again = rerun_test([str(tmp_path / "a")])
    assert again.metrics == metrics
    (tmp_path / "a" / "metrics.json").write_text("{}")
    again = rerun_test([str(tmp_path / "a")])
    assert again.metrics["test/accuracy"] == metrics["test/accuracy"]
    assert again.metrics["val/accuracy"] == metrics["val/accuracy"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--model.siz_lr", "1"], r"unrecognized arguments: --model\.siz_lr 1"),
        (["--model.lr", "fast"], r"model\.lr.*float.*fast"),
        (["--model.lr", "-1"], r"lr must be above 0, got -1"),
        (["--model.warmup", "2"], r"warmup must be at least 0 and below 1, got 2"),
        (["--data.validation", "1"], r"validation must lie between 0 and 1.*got 1"),
        (["--data.size", "4"], r"size must be at least 8.*got 4"),
        (["--model.network.init_args.kernel_siz", "5"], "'kernel_siz' is not accepted"),
        (["--model.network.init_args.kernel_size", "4"], "kernel_size is the maximum.*got 4"),
        (["--model.network.class_path", "nowhere.Net"], "No module named 'nowhere'"),
        (["--trainer.limit_val_batches", "0"], "no checkpoint was chosen"),
    ],
)
def test_a_wrong_key_or_value_is_one_line(run, args, message):
    with pytest.raises(RunError, match=message) as caught:
        run("a", *args)
    assert "\n" not in str(caught.value)


def test_one_batch_is_one_batch_whatever_order_types_are_in(recipe, tmp_path, monkeypatch):
    def mixed_up(parser):
        for action in parser._actions:
            if getattr(action, "_typehint", None) == int | float | None:
                action._typehint = float | int | None
        original(parser)

    original = config._take_whole_numbers_as_such
    monkeypatch.setattr(config, "_take_whole_numbers_as_such", mixed_up)
    args = ["--config", str(recipe), "--trainer.limit_train_batches", "1"]
    cli = config.RunCLI(args, RunFolder(tmp_path / "a"), "fit")
    limits = cli.trainer.limit_train_batches, cli.trainer.limit_val_batches
    assert limits == (1, 1)
    assert [type(limit) for limit in limits] == [int, int]


def test_unknown_keys_of_a_recipe_are_refused(run, recipe, tmp_path):
    recipe.write_text(recipe.read_text().replace("size_lr:", "siz_lr:"))
    with pytest.raises(RunError, match="'model' does not accept option 'siz_lr'"):
        run("a")
    assert not (tmp_path / "a").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "--out is missing"),
        (["--out"], "expected one argument"),
        (["--out", "{tmp}/a"], "--config is missing"),
        (["--out", "{tmp}/a", "--resume"], "--config is missing"),
        (
            ["--out", "{tmp}/a", "--config", "{tmp}/none.yaml"],
            r"none\.yaml does not exist: name a recipe",
        ),
        (["--out", "{tmp}/recipe.yaml", "--config", "{tmp}/recipe.yaml"], "is a file: name a fol"),
    ],
)
def test_arguments_of_the_run_are_checked(recipe, tmp_path, args, message):
    with pytest.raises(RunError, match=message) as caught:
        fit([arg.format(tmp=tmp_path) for arg in args])
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_folder_without_a_run_cannot_be_tested(tmp_path):
    with pytest.raises(RunError, match=r"holds no run to test: .*config\.yaml is missing"):
        rerun_test([str(tmp_path)])
    with pytest.raises(RunError, match="holds no run to test"):
        rerun_test([str(tmp_path / "none")])


SIZES = "--data.init_args.size"


def test_a_run_is_tested_at_another_resolution(run, tmp_path):
    run("a", SIZES, "8", "--trainer.max_epochs", "1")
    before = (tmp_path / "a" / "metrics.json").read_bytes()
    same = rerun_test([str(tmp_path / "a"), "--resolution", "8"])
    finer = rerun_test([str(tmp_path / "a"), "--resolution", "16"])
    assert (tmp_path / "a" / "metrics.json").read_bytes() == before
    assert same.metrics["test/accuracy"] == json.loads(before)["test/accuracy"]
    written = json.loads((tmp_path / "a" / "metrics-16.json").read_text())
    assert written == finer.metrics
    assert (written["resolution"], written["trained_resolution"]) == (16, 8)
    assert written["rescale"] == 2
    assert finer.network.stem.kernel_size == (9, 9)
    assert finer.network.stem.size >= same.network.stem.size


def test_a_resolution_that_samples_do_not_tell_is_not_made_up(run, tmp_path, monkeypatch):
    run("a", "--trainer.max_epochs", "1")
    monkeypatch.setattr("sizeless.train.run._sample_size", lambda *_: 1000)
    metrics = rerun_test([str(tmp_path / "a"), "--resolution", "16"]).metrics
    assert (metrics["resolution"], metrics["trained_resolution"]) == (16, None)


def test_a_run_starts_from_another_and_its_kernels_follow_the_resolution(run, tmp_path, power_cut):
    start = run("coarse", SIZES, "8", "--trainer.max_epochs", "1").network
    arguments = (SIZES, "16", "--start_from", str(tmp_path / "coarse"))
    whole = run("fine", *arguments)
    assert whole.network.stem.kernel_size == (9, 9)
    assert "rescale: 2.0" in (tmp_path / "fine" / "config.yaml").read_text()
    # A rate of nearly 0 keeps the weights that it starts from.
    still = run("still", *arguments, "--model.lr", "1e-9", "--model.size_lr", "0").network
    start.change_resolution_(2.0)
    torch.testing.assert_close(still.stem.weight, start.stem.weight, rtol=1e-4, atol=1e-5)
    power_cut(1)
    with pytest.raises(OSError, match="power cut"):
        run("cut", *arguments)
    power_cut(-1)
    shutil.rmtree(tmp_path / "coarse")
    shutil.copytree(tmp_path / "cut", tmp_path / "cut too")
    resumed = fit(["--out", str(tmp_path / "cut"), "--resume"]).metrics
    repeated = run("cut too", *arguments, "--resume").metrics
    for metrics in (whole.metrics, resumed, repeated):
        metrics.pop("seconds")
    assert resumed == repeated == whole.metrics


def test_there_must_be_a_run_to_start_from(run, tmp_path):
    with pytest.raises(RunError, match="none holds no run"):
        run("a", "--start_from", str(tmp_path / "none"))
    assert not (tmp_path / "a").exists()


def test_a_network_for_other_data_leaves_the_folder_free(run, tmp_path):
    key = "--model.network.init_args.num_classes"
    with pytest.raises(RunError, match=r"the data have 10 classes, .* got \(16, 4\)"):
        run("a", key, "4")
    assert not (tmp_path / "a" / "costs.csv").exists()
    run("a", key, "10", "--trainer.max_epochs", "1")
    assert (tmp_path / "a" / "metrics.json").exists()


def test_kernels_of_images_as_sequences_follow_the_number_of_samples(tmp_path):
    recipe = tmp_path / "sequences.yaml"
    recipe.write_text(SEQUENCES, encoding="utf-8")
    fit(["--config", str(recipe), "--out", str(tmp_path / "a")])
    outcome = rerun_test([str(tmp_path / "a"), "--resolution", "14"])
    # 7 x 7 pixels have become 14 x 14.
    assert {module.kernel_size for module in outcome.network.modules()
            if isinstance(module, sizeless.FlexConv1d)} == {(193,)}  # fmt: skip
    assert outcome.metrics["trained_resolution"] == 7


def test_data_may_lie_elsewhere_when_a_run_is_tested(recipe, tmp_path):
    write_idx(tmp_path / "here", train=100)
    text = recipe.read_text().partition("data:")[0]
    recipe.write_text(f"{text}data:\n  class_path: sizeless.train.data.FashionMNIST\n")
    root = "--data.init_args.root"
    arguments = ["--config", str(recipe), "--out", str(tmp_path / "a")]
    metrics = fit([*arguments, root, str(tmp_path / "here"), "--trainer.max_epochs=1"]).metrics
    (tmp_path / "here").rename(tmp_path / "there")
    with pytest.raises(RunError, match="here"):
        rerun_test([str(tmp_path / "a")])
    again = rerun_test([str(tmp_path / "a"), root, str(tmp_path / "there")])
    assert again.metrics == metrics


@pytest.mark.parametrize("key", ["--model.lr", "--data.init_args.split_seed"])
def test_a_test_changes_nothing_that_was_trained_with(run, tmp_path, key):
    run("a")
    with pytest.raises(RunError, match=rf"{key} cannot be changed .* root, roots, batch_size"):
        rerun_test([str(tmp_path / "a"), key, "-1"])


def test_batches_that_are_accumulated_are_one_large_batch(recipe, tmp_path, monkeypatch):
    """The last of the epoch, too, which are smaller and fewer."""
    (tmp_path / "unnormalised.py").write_text(
        "from torch import nn\n"
        "class Network(nn.Sequential):\n"
        "    def __init__(self):\n"
        "        super().__init__(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    text = recipe.read_text().replace("sizeless.models.FlexNet", "unnormalised.Network")
    recipe.write_text("\n".join(line for line in text.splitlines() if "in_channels" not in line))
    options = [
        "--config",
        str(recipe),
        "--trainer.max_epochs=1",
        "--trainer.limit_train_batches=1.0",
    ]
    large = fit([*options, "--data.init_args.batch_size=96", "--out", str(tmp_path / "large")])
    small = ["--data.init_args.batch_size=32", "--trainer.accumulate_grad_batches=3"]
    fit([*options, *small, "--out", str(tmp_path / "small")])
    assert large.metrics["macs"] == 640
    for name, value in states(tmp_path / "large").items():
        torch.testing.assert_close(states(tmp_path / "small")[name], value)
