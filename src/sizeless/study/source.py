"""Networks that a study is asked for by name or file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

PRETRAINED, FRESH = "pretrained", "none"
USUAL_INPUT = (3, 224, 224)


class StudyError(Exception):
    """A request that cannot be met; the message says in one line why, and what to do."""


@dataclass(frozen=True)
class Source:
    """A network to study.

    Attributes:
        name: What to call it.
        network: It, in evaluation.
        example: Inputs, ``(N, C, *spatial)``.
        make: Builds the same network with fresh weights, or the network itself where nothing
            is known that could.
        weights: Where its weights are from, in words.
        inputs: What the inputs are, in words.
    """

    name: str
    network: nn.Module
    example: Tensor
    make: Callable[[], nn.Module] | nn.Module
    weights: str
    inputs: str


def load(
    target: str,
    *,
    weights: str = PRETRAINED,
    input_shape: tuple[int, ...] | None = None,
    samples: int = 8,
    trust: bool = False,
) -> Source:
    """Load ``torchvision:NAME``, ``timm:NAME`` or a file that holds a whole network.

    Args:
        target: What to load.
        weights: ``"pretrained"`` (downloaded by the package, the best that it names), ``"none"``,
            or a file with a state dict (``.safetensors``, or of ``torch.save``).
        input_shape: ``(C, *spatial)`` of an input; ``None`` is that of the package's own settings,
            or 3 x 224 x 224.
        samples: How many inputs to draw; they are white noise of variance 1.
        trust: Whether a file may be unpickled, which can run any code that is in it.

    Raises:
        StudyError: If there is no such network, or its weights cannot be had.
    """
    package, colon, name = target.partition(":")
    if colon and package in PACKAGES:
        source = PACKAGES[package](name, weights, input_shape)
    elif Path(target).is_file():
        source = _from_file(Path(target), weights, input_shape, trust)
    else:
        raise StudyError(
            f"{target} is neither a run folder, nor a file, nor torchvision:NAME or timm:NAME"
        )
    network, shape, make, origin = source
    inputs = torch.randn(samples, *shape, generator=torch.Generator().manual_seed(0))
    return Source(
        target,
        network.eval(),
        inputs,
        make,
        origin,
        f"{samples} input{'s' * (samples > 1)} of white noise, {shape}",
    )


Found = tuple[nn.Module, tuple[int, ...], Callable[[], nn.Module] | nn.Module, str]


def _from_torchvision(name: str, weights: str, shape: tuple[int, ...] | None) -> Found:
    from torchvision import models

    try:
        best = models.get_model_weights(name).DEFAULT
    except ValueError as error:
        raise _unknown("torchvision", name, models.list_models()) from error

    def make() -> nn.Module:
        extra: dict[str, Any] = {}
        if name in {"googlenet", "inception_v3"}:
            extra["init_weights"] = True
        if "weights_backbone" in signature(models.get_model_builder(name)).parameters:
            # Detection and segmentation would download trained weights for a part of the network.
            extra["weights_backbone"] = None
        network: nn.Module = models.get_model(name, weights=None, **extra)
        return network

    if shape is None:
        crop = getattr(best.transforms(), "crop_size", USUAL_INPUT[-1:])
        shape = (3, *((crop[0],) * 2 if len(crop) == 1 else crop))
    if weights != PRETRAINED:
        return _with_weights(make, weights, shape)
    network = _downloaded("torchvision", name, lambda: models.get_model(name, weights=best))
    return network, shape, make, f"{best} of torchvision"


def _from_timm(name: str, weights: str, shape: tuple[int, ...] | None) -> Found:
    import timm

    if not timm.is_model(name.partition(".")[0]):
        raise _unknown("timm", name, timm.list_models())

    def make() -> nn.Module:
        try:
            network: nn.Module = timm.create_model(name, pretrained=False)
        except (RuntimeError, ValueError) as error:
            raise StudyError(f"timm cannot build {name!r}: {_one_line(error)}") from error
        return network

    if shape is None:
        shape = tuple(getattr(make(), "default_cfg", {}).get("input_size", USUAL_INPUT))
    if weights != PRETRAINED:
        return _with_weights(make, weights, shape)
    network = _downloaded("timm", name, lambda: timm.create_model(name, pretrained=True))
    return network, shape, make, f"pretrained weights {name} of timm"


PACKAGES = {"torchvision": _from_torchvision, "timm": _from_timm}


def _with_weights(make: Callable[[], nn.Module], weights: str, shape: tuple[int, ...]) -> Found:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = make()
    if weights == FRESH:
        return network, shape, make, "none: drawn afresh, seed 0"
    path = Path(weights)
    if not path.is_file():
        raise StudyError(
            f"--weights {weights} must be {PRETRAINED}, {FRESH} or a file, and there is no such "
            "file"
        )
    state = _state_dict(path)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise StudyError(
            f"--weights {path} does not fit the network: {' '.join(str(error).split())[:300]}"
        ) from error
    return network, shape, make, str(path)


def _state_dict(path: Path) -> dict[str, Tensor]:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ModuleNotFoundError:
        raise
    except Exception as error:  # whatever reading a damaged file raises
        raise StudyError(
            f"--weights {path} is no file of a state dict: {_one_line(error)}"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not (isinstance(content, dict) and content):
        raise StudyError(f"--weights {path} holds a {type(content).__name__}, not a state dict")
    return content


def _from_file(path: Path, weights: str, shape: tuple[int, ...] | None, trust: bool) -> Found:
    if weights != PRETRAINED:
        raise StudyError(
            f"--weights {weights} goes with torchvision:NAME and timm:NAME only; {path} is studied "
            "with the weights in it"
        )
    if not trust:
        raise StudyError(
            f"{path} must be unpickled, which can run any code that is in it: add --trust if you "
            "know where it is from; for a state dict, name the architecture instead, as in "
            f"timm:resnet18 --weights {path}"
        )
    try:
        network = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # whatever the code in it raises
        raise StudyError(f"{path} cannot be loaded: {_one_line(error)}") from error
    if not isinstance(network, nn.Module):
        raise StudyError(
            f"{path} holds a {type(network).__name__}, not a network; for a state dict, name the "
            f"architecture, as in timm:resnet18 --weights {path}"
        )
    if shape is None:
        raise StudyError(f"--input is missing: the shape of an input of {path}, as in 3x224x224")
    return network, shape, network, f"those in {path}"


def _downloaded(package: str, name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """Build a network whose weights may come from the network."""
    try:
        return make()
    except (OSError, RuntimeError) as error:
        raise StudyError(
            f"the weights of {package}:{name} could not be had ({_one_line(error)}); give them as "
            f"--weights FILE, or study fresh ones with --weights {FRESH}"
        ) from error


def _unknown(package: str, name: str, known: list[str]) -> StudyError:
    import difflib

    near = difflib.get_close_matches(name, known, 3, 0.5)
    hint = f"; close ones: {', '.join(near)}" if near else ""
    return StudyError(f"{package} has no network {name!r}{hint}")


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
