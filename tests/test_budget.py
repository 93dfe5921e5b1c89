"""A network keeps its budget, and is left alone within it."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import sizeless
from sizeless import CostBudget, DiffStride1d, DiffStride2d, FlexConv1d, cost, param_groups

LINE = torch.zeros(1, 1, 256)
EITHER = "give either share or limit, got {}: share=0.6 is 60 % of what the network costs now"


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        FlexConv1d(1, 8, 65, init_size=33),
        DiffStride1d(1.3, size_rule="exact"),
        FlexConv1d(8, 8, 65, init_size=33),
    )


def train(model, budget, pull=0.0, steps=400, seen=None):
    """Descend on a loss that gains ``pull`` by every size that grows by a factor of e."""
    sizes = [model[0].window.log_sigma, model[1].log2_stride, model[2].window.log_sigma]
    optimizer = torch.optim.Adam(sizes, lr=0.01)
    shares = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = pull * (sizes[1] - sizes[0] - sizes[2]).sum()
        (loss + budget(model)).backward()
        optimizer.step()
        sizeless.project_sizes_(model)
        budget.step()
        shares.append(budget.share_of(model))
        if seen is not None:
            seen.append(budget.multiplier)
    return torch.tensor(shares)


@pytest.mark.parametrize("quantity", ["macs", "bytes", "latency"])
def test_a_constraint_reaches_its_limit_and_does_not_shrink_further(quantity):
    model, multipliers = network(), []
    budget = CostBudget(model, LINE, share=0.6, quantity=quantity)
    assert budget.share_of(model) == 1
    shares = train(model, budget, steps=600, seen=multipliers)
    assert 0.54 <= shares[-1] <= 0.6
    # Steps of an integer size and the momentum of the optimiser take it a little below.
    assert shares.min() >= 0.54
    assert min(multipliers) >= 0
    assert multipliers[-1] < max(multipliers)


def test_a_constraint_finds_the_weight_that_a_penalty_must_be_given():
    """A loss that gains more by a larger network than the excess costs."""
    pulled, models = 0.5, [network() for _ in range(2)]
    forms = ("constraint", "penalty")
    constraint, penalty = (
        CostBudget(model, LINE, share=0.6, form=form, weight=0.3, multiplier_lr=0.03)
        for model, form in zip(models, forms, strict=True)
    )
    assert train(models[0], constraint, pulled)[-100:].mean() == pytest.approx(0.6, abs=0.02)
    assert constraint.multiplier > 0.5
    assert train(models[1], penalty, pulled, steps=200)[-100:].min() > 0.9
    assert penalty.multiplier == 0


def test_a_penalty_that_is_heavy_enough_keeps_the_limit():
    model = network()
    shares = train(model, CostBudget(model, LINE, share=0.6, form="penalty", weight=3.0), 0.2)
    assert shares[-100:].mean() == pytest.approx(0.6, abs=0.02)


@pytest.mark.parametrize("form", ["constraint", "penalty"])
def test_a_network_within_its_budget_is_left_alone(form):
    model = network()
    budget = CostBudget(model, LINE, share=1.0, form=form)
    value = budget(model)
    assert value.item() == 0
    value.backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())
    budget.step()
    assert budget.multiplier == 0


def test_the_terms_are_those_of_the_formulas():
    model = network()
    macs = cost(model, LINE).macs.item()
    excess = 1 / 0.8 - 1
    penalty = CostBudget(model, LINE, share=0.8, form="penalty", weight=3.0)
    assert penalty(model).item() == pytest.approx(3 * excess, rel=1e-5)
    constraint = CostBudget(model, LINE, limit=0.8 * macs, weight=3.0, multiplier_lr=0.5)
    for number in range(3):
        multiplier = number * 0.5 * excess
        assert constraint.multiplier == pytest.approx(multiplier, rel=1e-5)
        assert constraint(model).item() == pytest.approx(
            multiplier * excess + 1.5 * excess**2, rel=1e-5
        )
        constraint.step()


def test_the_gradient_is_that_of_the_cost():
    model = network()
    weight = model[2].window.log_sigma
    budget = CostBudget(model, LINE, share=0.5, form="penalty")
    (mine,) = torch.autograd.grad(budget(model), weight)
    macs = cost(model, LINE).macs
    (theirs,) = torch.autograd.grad(macs / (0.5 * macs.detach()), weight)
    torch.testing.assert_close(mine, theirs)


def test_a_limit_may_be_a_number_or_a_share():
    model = network()
    macs = cost(model, LINE).macs.item()
    assert CostBudget(model, LINE, share=0.5).limit == pytest.approx(macs / 2)
    absolute = CostBudget(model, LINE, limit=1e5)
    assert (absolute.limit, absolute.whole) == (1e5, pytest.approx(macs))
    assert absolute.excess_of(model) == pytest.approx(macs / 1e5 - 1)
    seconds = CostBudget(model, LINE, share=0.5, quantity="latency")
    assert seconds.whole == pytest.approx(cost(model, LINE).latency.item())


def test_the_cost_follows_the_sizes_without_another_forward_pass():
    model = nn.Sequential(
        DiffStride2d(1.5, size_rule="exact"), nn.Conv2d(1, 2, 3), sizeless.FlexConv2d(2, 2, 17)
    )
    image, passes = torch.zeros(1, 1, 32, 32), []
    budget = CostBudget(model, image, share=0.5)
    model.register_forward_hook(lambda *_: passes.append(1))
    with torch.no_grad():
        model[2].window.log_sigma.add_(0.5)
        model[0].log2_stride.add_(1e-4)
    assert budget.cost_of(model) == pytest.approx(cost(model, image).macs.item())
    assert len(passes) == 1, "the one of cost()"
    with torch.no_grad():
        model[0].log2_stride.add_(0.3)
    assert budget.cost_of(model) == pytest.approx(cost(model, image).macs.item())
    assert len(passes) == 3


def test_a_kernel_that_changes_the_map_is_followed():
    model = nn.Sequential(FlexConv1d(1, 2, 33, padding="valid", init_size=5), nn.Conv1d(2, 1, 3))
    budget = CostBudget(model, LINE, share=0.5)
    with torch.no_grad():
        model[0].window.log_sigma.add_(0.7)
    assert budget.cost_of(model) == pytest.approx(cost(model, LINE).macs.item())


def test_training_goes_on_from_a_checkpoint_bit_for_bit():
    whole, part = network(), network()
    budgets = [CostBudget(model, LINE, share=0.6) for model in (whole, part)]

    def steps(model, budget, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            budget(model).backward()
            optimizer.step()
            budget.step()

    first = [torch.optim.Adam(param_groups(model, 0.05)) for model in (whole, part)]
    steps(whole, budgets[0], first[0], 40)
    steps(part, budgets[1], first[1], 25)
    file = io.BytesIO()
    objects = {"model": part, "optimizer": first[1], "budget": budgets[1]}
    torch.save({name: value.state_dict() for name, value in objects.items()}, file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    part = network()
    part.load_state_dict(state["model"])
    optimizer = torch.optim.Adam(param_groups(part, 0.05))
    optimizer.load_state_dict(state["optimizer"])
    # Made for sizes that have shrunk already: the whole is that of the checkpoint.
    budget = CostBudget(part, LINE, share=0.6)
    budget.load_state_dict(state["budget"])
    steps(part, budget, optimizer, 15)
    assert budget.state_dict() == budgets[0].state_dict()
    for mine, expected in zip(part.parameters(), whole.parameters(), strict=True):
        assert torch.equal(mine, expected)


def test_a_copy_follows_its_own_model():
    model = network()
    budget = CostBudget(model, LINE, share=0.6)
    for copied, again in (
        copy.deepcopy((model, budget)),
        pickle.loads(pickle.dumps((model, budget))),
    ):
        with torch.no_grad():
            copied[0].window.log_sigma.sub_(1.0)
        assert again.cost_of(copied) == pytest.approx(cost(copied, LINE).macs.item())
        assert again.share_of(copied) < 1
        assert budget.share_of(model) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({}, ValueError, EITHER.format("share=None and limit=None")),
        ({"share": 0.5, "limit": 10}, ValueError, EITHER.format("share=0.5 and limit=10")),
        ({"share": 0}, ValueError, "share must be a finite number above 0, got 0"),
        ({"share": "60 %"}, TypeError, "share must be a number, got '60 %'"),
        ({"limit": -1.0}, ValueError, "limit must be a finite number above 0, got -1.0"),
        (
            {"share": 0.5, "quantity": "flops"},
            ValueError,
            "quantity must be 'macs', 'bytes' or 'latency', got 'flops'",
        ),
        (
            {"share": 0.5, "form": "barrier"},
            ValueError,
            "form must be 'constraint' or 'penalty', got 'barrier'",
        ),
        ({"share": 0.5, "weight": 0}, ValueError, "weight must be a finite number above 0, got 0"),
        (
            {"share": 0.5, "multiplier_lr": -0.1},
            ValueError,
            "multiplier_lr must be a finite number above 0, got -0.1",
        ),
        (
            {"share": 0.5, "machine": 3},
            TypeError,
            "machine must be a sizeless.Machine or None, got 3",
        ),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error) as caught:
        CostBudget(nn.Conv1d(1, 1, 1), LINE, **options)
    assert str(caught.value) == message


def test_wrong_models_and_states():
    with pytest.raises(TypeError, match=r"model must be an instance of torch\.nn\.Module, got int"):
        CostBudget(3, LINE, share=0.5)
    with pytest.raises(ValueError, match="ReLU called no layer that is counted"):
        CostBudget(nn.ReLU(), LINE, share=0.5)
    budget = CostBudget(nn.Conv1d(1, 1, 1), LINE, share=0.5)
    with pytest.raises(ValueError, match=r"must hold 'multiplier' and 'whole'.*got \['whole'\]"):
        budget.load_state_dict({"whole": 1.0})
    with pytest.raises(ValueError, match="multiplier must be a finite number of at least 0"):
        budget.load_state_dict({"whole": 1.0, "multiplier": -1.0})
