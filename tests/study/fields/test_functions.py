"""What tensors see behind every kind of function, against what gradients say."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sizeless.study.fields.following import follow

SIZE = 48


class Function(nn.Module):
    """A function between two layers, so that its place and its notes can be seen."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, input):
        return self.function(input)


def ones(*shape):
    return torch.ones(shape, dtype=torch.float64)


def blur(input):
    """A convolution of three positive taps along the last axis of every channel."""
    channels = input.shape[1]
    return F.conv1d(input, ones(channels, 1, 3), groups=channels)


def sees(network):
    """Which samples every position of the output sees, ``(positions, samples)``."""
    torch.manual_seed(0)
    draws = torch.rand(12, 1, 1, SIZE, dtype=torch.float64) + 1
    # A maximum passes the gradient of one sample only, another at each draw.
    rows = [torch.autograd.functional.jacobian(lambda x: network(x).sum((0, 1)), x) for x in draws]
    return torch.stack(rows).abs().sum((0, 2, 3)) > 1e-9


def fact_of(network, example):
    found = follow(network, example).maps
    return next(seen.fact for seen in reversed(found) if seen.name == "")


def check_tight(function, slack=0.0):
    """The interval holds what each position sees, and none that is smaller by ``slack`` does."""
    network = Function(lambda input: blur(function(blur(input))))
    reach = fact_of(network, torch.ones(1, 1, SIZE, dtype=torch.float64)).reaches[0]
    lows, highs = [], []
    for position, row in enumerate(sees(network)):
        places = row.nonzero().flatten().tolist()
        # At an edge of the input a position sees less than it could.
        if places and places[0] > 0:
            lows.append(places[0] - position * reach.jump)
        if places and places[-1] < SIZE - 1:
            highs.append(places[-1] - position * reach.jump)
    assert -1e-6 <= min(lows) - reach.low <= slack + 1e-6
    assert -1e-6 <= reach.high - max(highs) <= slack + 1e-6
    return reach


def stretched(length, mode, **options):
    return lambda x: F.interpolate(x, length, mode=mode, **options)


RESIZING = {
    "nearest up": stretched(92, "nearest"),
    "nearest up, odd": stretched(101, "nearest"),
    "nearest down": stretched(20, "nearest"),
    "nearest-exact": stretched(70, "nearest-exact"),
    "linear up": stretched(92, "linear"),
    "linear up, odd": stretched(103, "linear"),
    "linear aligned": stretched(91, "linear", align_corners=True),
    "linear down": stretched(15, "linear"),
    "area": stretched(23, "area"),
    "area, uneven": stretched(17, "area"),
    "scale": lambda x: F.interpolate(x, scale_factor=2.5, mode="linear"),
    "recomputed scale": lambda x: F.interpolate(
        x, scale_factor=1.7, mode="linear", recompute_scale_factor=True
    ),
    "adaptive, even": lambda x: F.adaptive_avg_pool1d(x, 23),
    "adaptive, uneven": lambda x: F.adaptive_avg_pool1d(x, 17),
    "transposed": lambda x: F.conv_transpose1d(x, ones(1, 1, 3), stride=2, padding=1),
    "transposed, wide": lambda x: F.conv_transpose1d(x, ones(1, 1, 6), stride=3),
    "transposed, narrow": lambda x: F.conv_transpose1d(x, ones(1, 1, 1), stride=1, padding=1),
}


@pytest.mark.parametrize("function", RESIZING.values(), ids=RESIZING)
def test_resizing(function):
    # The widest of uneven windows may lie where the input ends.
    check_tight(function, slack=0.2)


def wider_branch(x):
    return x[..., 1:-1] + blur(x)


LOCAL = {
    "pooling": lambda x: F.max_pool1d(x, 3, 2, 1),
    "pooling, with indices": lambda x: F.max_pool1d(x, 2, return_indices=True)[0],
    "dilated pooling": lambda x: F.max_pool1d(x, 2, 1, 0, 3),
    "average": lambda x: F.avg_pool1d(x, 4, 2, 1),
    "norm pooling": lambda x: F.lp_pool1d(x, 2, 4, stride=3),
    "padding": lambda x: F.pad(x, (5, 2)),
    "cropping": lambda x: F.pad(x, (-3, -1)),
    "same padding": lambda x: F.conv1d(x, ones(1, 1, 4), padding="same", dilation=2),
    "slice": lambda x: x[:, :, 3:-2],
    "steps": lambda x: x[..., 1::3],
    "ellipsis": lambda x: x[..., None, 2:].squeeze(2),
    "narrow": lambda x: x.narrow(2, 4, 20),
    "split": lambda x: x.split([10, 20, 16], 2)[1],
    "chunk": lambda x: x.chunk(2, dim=-1)[1],
    "joined": lambda x: torch.cat(x.split([10, 36], 2), 2),
    "joined with constants": lambda x: torch.cat([x.new_ones(1, 1, 3), x], dim=-1),
    "branches": wider_branch,
    "branches on channels": lambda x: torch.cat([x[..., 1:-1], blur(x)], 1),
    "branches stacked": lambda x: torch.stack([x[..., 1:-1], blur(x)]).sum(0),
    "space to channels": lambda x: torch.cat([x[..., ::2], x[..., 1::2]], 1),
    "permuted": lambda x: F.pad(x.permute(2, 0, 1), (0, 0, 0, 0, 2, 0)).permute(1, 2, 0),
    "transposed there and back": lambda x: x.transpose(1, 2).contiguous().mT,
    "moved": lambda x: x.movedim(2, 0).movedim(0, -1),
    "linear over channels": lambda x: F.linear(x.mT, ones(3, 1)).mT,
    "matrix from the left": lambda x: ones(3, 1) @ x,
    "one of the channels": lambda x: x[:, 0][:, None],
    "view": lambda x: x.view(1, 1, 1, -1).flatten(0, 1).unflatten(1, (1, 1)).flatten(1, 2),
    "in place": lambda x: blur(x).mul_(2).add_(x[..., 2:]),
    "operators": lambda x: 1 / (2 - (-x) ** 2 + x * 3).abs().clamp(min=1e-3),
    "activation": lambda x: F.gelu(F.relu(x, inplace=False)),
    "normalised over channels": lambda x: F.layer_norm(x.mT, (1,), bias=ones(1)).mT + x,
    "mean over channels": lambda x: x.mean(1, keepdim=True),
    "largest channel": lambda x: x.max(dim=1, keepdim=True).values,
    "largest of two": lambda x: torch.max(x[..., 1:], 0.5 * x[..., :-1]) + x[..., :-1],
    "softmax over channels": lambda x: x * x.softmax(1),
    "unbound": lambda x: x.unbind(1)[0].unsqueeze(1),
    "iterated": lambda x: next(iter(x))[None],
    "an index": lambda x: x[0].select(0, 0)[None, None],
}


@pytest.mark.parametrize("function", LOCAL.values(), ids=LOCAL)
def test_functions_that_stay_local(function):
    reach = check_tight(function)
    assert not reach.whole


@pytest.mark.parametrize("function", [F.pixel_shuffle, F.pixel_unshuffle])
def test_channels_to_space_and_back(function):
    layer = nn.Sequential(nn.Conv2d(4, 4, 3), Function(lambda x: function(x, 2)))
    reach = fact_of(layer, torch.ones(1, 4, 12, 12)).reaches[0]
    expected = {"pixel_shuffle": (0.5, -0.5, 2), "pixel_unshuffle": (2, 0, 3)}
    assert (reach.jump, reach.low, reach.high) == expected[function.__name__]


def test_maps_of_different_jumps_are_held_together():
    network = Function(lambda x: x[..., :12] + x[..., ::4])
    fact = fact_of(network, torch.ones(1, 1, SIZE))
    reach = fact.reaches[0]
    for position in range(12):
        low, high = reach.at(position)
        assert low <= position <= 4 * position <= high
    assert fact.notes == ("maps of different jumps meet in add in the network",)


class Recurrence(nn.LSTM):
    def __init__(self):
        super().__init__(1, 1)

    def forward(self, input):
        return super().forward(input.permute(2, 0, 1))[0].permute(1, 2, 0)


WHOLE = {
    "mean": lambda x: x * x.mean(2, keepdim=True),
    "softmax": lambda x: x.softmax(-1),
    "linear": lambda x: F.linear(x, torch.ones(SIZE - 2, SIZE - 2)),
    "flattened": lambda x: F.linear(x.flatten(1), torch.ones(8, SIZE - 2))[:, None],
    "attention": lambda x: F.scaled_dot_product_attention(x.mT, x.mT, x.mT).mT,
    "recurrence": Recurrence(),
    "sums": lambda x: x.cumsum(2),
    "a made weight": lambda x: F.conv1d(x, x.mean(2, keepdim=True)),
}


@pytest.mark.parametrize("function", WHOLE.values(), ids=WHOLE)
def test_functions_that_see_everything(function):
    layers = nn.Conv1d(1, 1, 3), Function(function), nn.Conv1d(1, 1, 3)
    fact = follow(nn.Sequential(*layers), torch.ones(1, 1, SIZE)).sights[-1].fact
    assert fact.whole
    assert fact.notes == ()


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(_, x):
        return torch.from_numpy(2 * x.numpy())


def through_numbers(x):
    return torch.tensor(x.tolist())


def written(x):
    empty = torch.zeros_like(x)
    empty[..., 1:] = x[..., :-1]
    return empty


def written_through_a_view(x):
    empty = torch.zeros_like(x)
    empty[..., 1:].copy_(x[..., :-1])
    return empty


UNKNOWN = {
    "spectrum": lambda x: torch.fft.irfft(torch.fft.rfft(x), n=SIZE - 2),
    "gathered": lambda x: x[..., torch.arange(SIZE - 2).flip(0)],
    "sorted": lambda x: x.sort(-1).values,
    "outside of torch": Doubled.apply,
    "numbers": through_numbers,
    "written": written,
    "written through a view": written_through_a_view,
    "windows": lambda x: x.unfold(2, 3, 1)[..., 0],
    "product with itself": lambda x: x @ x.mT @ x,
    "tokens in another order": lambda x: x.view(1, 2, -1).mT.reshape(1, 1, -1) + x,
    "per sample": torch.vmap(torch.relu),
}


@pytest.mark.parametrize("function", UNKNOWN.values(), ids=UNKNOWN)
def test_what_cannot_be_followed_is_taken_for_everything_and_noted(function):
    layers = nn.Conv1d(1, 1, 3), Function(function), nn.Conv1d(1, 1, 3)
    fact = follow(nn.Sequential(*layers), torch.ones(1, 1, SIZE)).sights[-1].fact
    assert fact.whole
    assert any("not followed through" in note for note in fact.notes)


@pytest.mark.parametrize(
    "norm", [nn.GroupNorm(1, 1), nn.InstanceNorm1d(1), nn.LayerNorm(SIZE - 2)], ids=str
)
def test_statistics_of_the_map_are_noted(norm):
    layers = nn.Conv1d(1, 1, 3), norm, nn.Conv1d(1, 1, 3)
    fact = follow(nn.Sequential(*layers), torch.ones(1, 1, SIZE)).sights[-1].fact
    assert fact.reaches[0].field == 5
    assert "not counted" in fact.notes[0]


def test_tokens_stay_local_until_they_meet():
    class Blocks(nn.Module):
        def forward(self, x):
            tokens = torch.cat([x.new_zeros(1, 1, 2), x.flatten(2).mT], dim=1)
            tokens = tokens + tokens.relu()
            return F.scaled_dot_product_attention(tokens, tokens, tokens)

    network = nn.Sequential(nn.Conv2d(1, 2, 4, 4), Blocks())
    patches, attention = follow(network, torch.ones(1, 1, 16, 16)).sights
    assert [reach.field for reach in patches.fact.reaches] == [4, 4]
    assert (attention.name, attention.kind, attention.fact.notes) == ("1", "global", ())


def test_a_constant_that_is_no_buffer_is_one():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = torch.full((1, 1, 1), 2.0)

        def forward(self, x):
            return F.max_pool1d(x * self.scale, 2)

    assert fact_of(Scaled(), torch.ones(1, 1, 8)).reaches[0].field == 2


def test_a_position_that_was_taken_out_sees_the_same_for_all():
    network = nn.Sequential(nn.Conv1d(1, 1, 3, padding=1), Function(lambda x: x + x[..., 4:5]))
    reach = follow(network, torch.ones(1, 1, SIZE)).maps[-1].fact.reaches[0]
    assert reach.whole, "a fixed part and one that moves fit into no interval that moves"


def test_scripted_modules_are_not_followed():
    with pytest.warns(FutureWarning, match="torch.jit.script"):
        scripted = torch.jit.script(nn.Sequential(nn.Conv1d(1, 1, 3)))
    fact = follow(nn.Sequential(scripted, nn.Conv1d(1, 1, 3)), torch.ones(1, 1, 9)).sights[-1].fact
    assert fact.whole
    assert "code that torch does not show" in fact.notes[0]


def test_positions_know_where_they_are():
    reach = fact_of(nn.Conv1d(1, 1, 5, 2, padding=1), torch.ones(1, 1, SIZE)).reaches[0]
    assert reach.at(3) == (5, 9)
    assert reach.everything().at(3) == (0, SIZE - 1)
    assert math.isnan(reach.fixed(3).jump)
    assert reach.fixed(3).at(1) == (-1, 7)
