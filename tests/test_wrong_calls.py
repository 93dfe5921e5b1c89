"""What is said about wrong calls, for the whole public interface: tables in ``wrong_calls``."""

from __future__ import annotations

import math

import pytest
import torch

from sizeless.compat import load_official_flexconv
from sizeless.models import flextcn2

from .wrong_calls.functions import FUNCTIONS, KERNELS
from .wrong_calls.layers import CONVOLUTIONS, POOLS
from .wrong_calls.models import NETWORKS, OFFICIAL, PENALTIES, SIZES
from .wrong_calls.row import check

NAN = math.nan
LAYERS = [*CONVOLUTIONS, *POOLS]
MODELS = [*SIZES, *PENALTIES, *NETWORKS, *OFFICIAL]


@pytest.mark.parametrize(("call", "error", "fragments"), [*FUNCTIONS, *KERNELS, *LAYERS, *MODELS])
def test_wrong_calls(call, error, fragments):
    check(call, error, fragments)


WINDOW, HEAD = "backbone.0.cconv1.mask_params", "finallyr.bias"


@pytest.mark.parametrize(
    ("change", "fragments"),
    [
        pytest.param({HEAD: None}, ("missing 'finallyr.bias'",), id="missing"),
        pytest.param({"extra": torch.ones(1)}, ("left over 'extra'",), id="left over"),
        pytest.param({HEAD: torch.ones(3)}, (HEAD, "(3,)", "wants (10,)", "build"), id="shape"),
        pytest.param({WINDOW: torch.ones(2, 2)}, (WINDOW, "(2, 2)", "wants (1, 2)"), id="axes"),
        pytest.param({WINDOW: torch.tensor([[0.0, NAN]])}, ("sigma", "nan", "finite"), id="NaN"),
        pytest.param(
            {WINDOW.replace("params", "threshold"): torch.tensor(0.2)},
            ("mask_threshold", "0.2", "threshold of 0.1 is supported"),
            id="threshold",
        ),
    ],
)
def test_checkpoints_that_do_not_fit(golden, change, fragments):
    state = golden("flextcn2_official", "state_dict/") | change
    state = {key: value for key, value in state.items() if value is not None}
    check(lambda: load_official_flexconv(flextcn2(kernel_size=161), state), ValueError, fragments)
