from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sizeless import cost
from sizeless.nn import DiffStride2d, FlexConv1d
from sizeless.study.history import trajectories
from sizeless.train.callbacks import KeepLimits, RandomState, SizeLog, size_metrics
from sizeless.train.checkpoints import SafeCheckpointIO
from sizeless.trajectories import snapshot


def test_a_checkpoint_that_cannot_be_written_leaves_the_one_before(tmp_path):
    path, plugin = tmp_path / "checkpoints" / "last.ckpt", SafeCheckpointIO()
    plugin.save_checkpoint({"step": 1}, path)
    with pytest.raises((AttributeError, TypeError), match=r"pickle|local object"):
        plugin.save_checkpoint({"step": lambda: 2}, path)
    assert plugin.load_checkpoint(path) == {"step": 1}
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_checkpoints_run_no_code(tmp_path):
    plugin = SafeCheckpointIO()
    torch.save({"model": nn.Linear(1, 1)}, tmp_path / "a.ckpt")
    with pytest.raises(Exception, match="Weights only load failed"):
        plugin.load_checkpoint(tmp_path / "a.ckpt")
    with pytest.raises(ValueError, match="weights_only must be True"):
        plugin.load_checkpoint(tmp_path / "a.ckpt", weights_only=False)
    with pytest.raises(TypeError, match="storage_options must be None, got 1"):
        plugin.save_checkpoint({}, tmp_path / "b.ckpt", storage_options=1)


def test_sizes_return_into_their_limits():
    network = nn.Sequential(DiffStride2d(2.0, size_rule="exact", max_stride=3.0))
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.fill_(50.0)
    KeepLimits().on_train_batch_end(None, network, None, None, 0)
    assert torch.cat([p.flatten() for p in network.parameters()]).max() < 3.0
    assert network[0].stride == pytest.approx((3.0, 3.0))


def test_random_numbers_go_on_where_they_stopped():
    saved = RandomState().state_dict()
    expected = torch.rand(3)
    callback = RandomState()
    callback.load_state_dict(saved)
    torch.rand(5)
    callback.on_train_start(SimpleNamespace(global_rank=0), None)
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(RandomState().state_dict()["processes"][0]["cpu"], torch.get_rng_state())


def test_loggers_get_sizes_and_centres_by_path():
    network = nn.Sequential(FlexConv1d(1, 1, 9, init_size=3), nn.Sequential(DiffStride2d(2.0)))
    metrics = size_metrics(snapshot(network))
    assert metrics == {"size/0/0": 3.0, "center/0/0": 0.0, "size/1/0/0": 2.0, "size/1/0/1": 2.0}


STEPS = 4
SAMPLE = torch.zeros(1, 1, 20)


def growing(network):
    """A task whose network has larger kernels after each epoch."""
    task = nn.ModuleDict({"network": network})

    def grow():
        with torch.no_grad():
            network.window.log_sigma += 0.3

    return task, grow


def log_epochs(folder, network, epochs, first=0, rank=0):
    """Let a log see some epochs of a training, the first after a resume."""
    log = SizeLog(folder / "sizes.csv")
    task, grow = growing(network)
    trainer = SimpleNamespace(
        global_step=STEPS * first, current_epoch=first, is_global_zero=rank == 0, loggers=[]
    )
    log.on_train_start(trainer, task)
    for epoch in range(first, epochs):
        trainer.current_epoch = epoch
        for batch in range(STEPS):
            log.on_train_batch_start(trainer, task, (SAMPLE.repeat(3, 1, 1), None), batch)
            trainer.global_step += 1
        grow()
        log.on_train_epoch_end(trainer, task)
    return log


def flexible():
    return FlexConv1d(1, 2, 15, init_size=3)


def test_the_cost_is_written_before_training_and_after_each_epoch(tmp_path):
    network = flexible()
    before = cost(network, SAMPLE).macs.item()
    log_epochs(tmp_path, network, 3)
    costs = trajectories(tmp_path).costs
    assert [(point.epoch, point.step) for point in costs] == [(0, 0), (1, 4), (2, 8), (3, 12)]
    assert costs[0].macs == before
    assert costs[-1].macs == cost(network, SAMPLE).macs.item() > before
    assert {path.name for path in tmp_path.iterdir()} == {"sizes.csv", "costs.csv"}


def test_a_resumed_run_keeps_the_costs_up_to_its_step(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    log_epochs(whole, flexible(), 4)
    network = flexible()
    log_epochs(cut, network, 2)
    table = cut / "costs.csv"
    table.write_text(table.read_text() + "3,12,1\n")
    log_epochs(cut, network, 4, first=2)
    assert table.read_text() == (whole / "costs.csv").read_text()


def test_a_run_of_before_costs_were_written_goes_on_with_them(tmp_path):
    network = flexible()
    log_epochs(tmp_path, network, 2)
    (tmp_path / "costs.csv").unlink()
    log_epochs(tmp_path, network, 3, first=2)
    found = trajectories(tmp_path)
    assert [point.step for point in found.costs] == [8, 12]
    assert sorted({point.step for point in found.points}) == [0, 4, 8, 12]


def test_where_nothing_is_counted_there_is_no_table_of_costs(tmp_path):
    class Plain(nn.Identity):
        def __init__(self):
            super().__init__()
            self.window = nn.Module()
            self.window.log_sigma = nn.Parameter(torch.zeros(1))

    log_epochs(tmp_path, Plain(), 2)
    assert [path.name for path in tmp_path.iterdir()] == ["sizes.csv"]


def test_other_processes_count_but_do_not_write(tmp_path):
    log = log_epochs(tmp_path, flexible(), 2, rank=1)
    assert [row.epoch for row in log.costs] == [0, 1, 2]
    assert not list(tmp_path.iterdir())
