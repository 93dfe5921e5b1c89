from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from sizeless.nn import DiffStride2d, FlexConv1d
from sizeless.train.callbacks import KeepLimits, RandomState, size_metrics
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
