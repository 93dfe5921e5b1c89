from __future__ import annotations

import itertools

import pytest
import torch

from sizeless.train.data.loading import (
    BatchOrder,
    Draw,
    ItemSamples,
    Loader,
    Position,
    TensorSamples,
)


def indices(order):
    return [[draw.index for draw in batch] for batch in order]


def samples(count, **options):
    return TensorSamples(torch.arange(float(count)).view(-1, 1, 1), torch.arange(count), **options)


def test_an_epoch_holds_every_sample_once_in_an_order_of_its_own():
    orders = [BatchOrder(10, 4, lambda epoch=epoch: Position(7, epoch)) for epoch in (0, 0, 1)]
    first, again, second = (list(itertools.chain(*indices(order))) for order in orders)
    assert sorted(first) == list(range(10)) == sorted(second)
    assert first == again
    assert first not in (second, sorted(first))


def test_seeds_of_samples_follow_seed_and_epoch():
    def seeds(seed, epoch):
        order = BatchOrder(6, 6, lambda: Position(seed, epoch))
        return {draw.index: draw.seed for batch in order for draw in batch}

    assert seeds(1, 0) == seeds(1, 0)
    assert len(set(seeds(1, 0).values())) == 6
    for other in (seeds(1, 1), seeds(2, 0)):
        assert not set(seeds(1, 0).values()) & set(other.values())


def test_an_epoch_goes_on_after_the_batches_that_are_done():
    whole = list(BatchOrder(10, 3, lambda: Position(0, 4)))
    assert list(BatchOrder(10, 3, lambda: Position(0, 4, 2))) == whole[2:]
    assert list(BatchOrder(10, 3, lambda: Position(0, 4, 4))) == []


@pytest.mark.parametrize("world_size", [2, 3])
def test_processes_together_see_what_one_would(world_size):
    def position():
        return Position(3, 1)

    whole = indices(BatchOrder(14, 4, position))
    shares = [indices(BatchOrder(14, 4, position, rank, world_size)) for rank in range(world_size)]
    steps = len(shares[0])
    assert all(len(share) == steps and all(share) for share in shares)
    together = [sorted(itertools.chain(*parts)) for parts in zip(*shares, strict=True)]
    # A last batch with fewer samples than processes is left out: all of them must step.
    assert together == [sorted(batch) for batch in whole if len(batch) >= world_size]


def test_evaluation_leaves_no_sample_out_and_counts_none_twice():
    orders = [BatchOrder(9, 4, None, rank, 3) for rank in range(3)]
    counted = [draw.index for order in orders for batch in order for draw in batch if draw.counts]
    assert sorted(counted) == [*range(9)]
    assert [len(order) for order in orders] == [len([*order]) for order in orders] == [3, 3, 3]
    assert [orders[0].size_of(number) for number in range(3)] == [4, 4, 1]


def test_a_process_without_samples_gets_one_without_its_target():
    batches = [[*Loader(samples(9), BatchOrder(9, 4, None, rank, 3))] for rank in range(3)]
    assert [[len(targets) for _, targets in share] for share in batches] == [
        [2, 2, 1], [1, 1, 0], [1, 1, 0],
    ]  # fmt: skip
    assert all(len(inputs) > 0 for share in batches for inputs, _ in share)


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_a_loader_gives_the_batches_of_its_order(workers):
    order = BatchOrder(7, 3, lambda: Position(0, 0))
    batches = list(Loader(samples(7), order, workers))
    assert [targets.tolist() for _, targets in batches] == indices(order)
    assert all(torch.equal(inputs.flatten(), targets.float()) for inputs, targets in batches)


def test_a_loader_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    list(Loader(samples(4), BatchOrder(4, 2, lambda: Position(0, 0))))
    assert torch.equal(torch.get_rng_state(), before)


def test_augmentation_follows_the_seed_of_a_draw():
    def noise(inputs, generator):
        return inputs + torch.rand(inputs.shape, generator=generator)

    noisy = samples(3, augment=noise)
    one, _ = noisy.__getitems__([Draw(0, 5), Draw(2, 6)])
    other, _ = noisy.__getitems__([Draw(2, 6), Draw(0, 7)])
    assert torch.equal(one[1], other[0])
    assert not torch.equal(one[0], other[1])
    assert torch.equal(noisy[Draw(2, 6)][0], one[1])


def test_transforms_of_items_draw_from_their_own_seed():
    source = [(torch.zeros(2), 5), (torch.ones(2), 6)]
    items = ItemSamples(
        source, lambda value: value + torch.rand(2), indices=[1], target=lambda t: -t
    )
    before = torch.get_rng_state()
    inputs, targets = items.__getitems__([Draw(0, 3), Draw(0, 3)])
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(inputs[0], inputs[1])
    assert targets.tolist() == [-6, -6]
    assert (inputs >= 1).all()
    assert len(items) == 1
