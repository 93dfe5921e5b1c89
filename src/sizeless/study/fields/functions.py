"""How functions that are no layers carry on what a tensor sees."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

from sizeless._example import tensors_in
from sizeless.study.fields.reach import Fact, Shape, Window, meet, unknown
from sizeless.study.fields.windows import Call

Rule = Callable[[Call, Any], Fact | list[Fact | None] | None]
"""What the outputs of a call see; ``None`` where the rule does not know."""

CONSTANT = {
    *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like", "randn_like"),
    *("new_empty", "new_zeros", "new_ones", "new_full", "new_tensor", "zero", "grad"),
}
"""Functions that ask a tensor for no more than its shape."""

LEAKING = {"numpy", "tolist", "item", "float", "array"}
"""Functions that give out numbers, which nobody can follow; where they return no tensor."""

KEEPING = {
    *("contiguous", "clone", "detach", "to", "type", "type_as", "float", "double", "half"),
    *("bfloat16", "cpu", "cuda", "data", "real", "requires_grad", "alias", "copy", "glu"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_dropout"),
    *("feature_alpha_dropout", "relu", "relu6", "prelu", "rrelu", "celu", "selu", "hardswish"),
    *("normalize", "local_response_norm", "fake_quantize_per_tensor_affine", "expand"),
    *("expand_as", "where", "nan_to_num", "broadcast_to", "lerp", "clamp", "clip", "softsign"),
    *("tanhshrink", "hardtanh", "hardsigmoid", "hardshrink", "softshrink", "threshold"),
    *("logsigmoid", "gelu", "silu", "mish", "softplus", "elu", "leaky_relu", "square"),
}
"""Functions that work position by position, beside those that torch itself says that of."""

OPERATORS = {
    **dict.fromkeys(("truediv", "floordiv"), "div"),
    "and": "bitwise_and",
    "or": "bitwise_or",
    "xor": "bitwise_xor",
    "invert": "bitwise_not",
}


def name_of(func: Any) -> str:
    """The name of a function, without the marks of operators and of work in place.

    Examples:
        >>> import torch
        >>> name_of(torch.Tensor.__iadd__), name_of(torch.Tensor.relu_)
        ('add', 'relu')
    """
    name: str = getattr(func, "__name__", str(func)).partition(".")[0]
    if name == "__get__":
        return str(func.__self__.__name__)
    if not name.startswith("__"):
        return name.rstrip("_")
    bare = name.strip("_")
    for shorter in (bare, bare[1:]):
        known = OPERATORS.get(shorter, shorter)
        # A product from the right has its factors the other way round.
        if name != "__rmatmul__" and (known in RULES or elementwise(known)):
            return known
    return bare


@cache
def elementwise(name: str) -> bool:
    """Whether a function works position by position.

    Examples:
        >>> elementwise("sigmoid"), elementwise("add"), elementwise("cumsum")
        (True, True, False)
    """
    packet = getattr(torch.ops.aten, name, None)
    if name in KEEPING or packet is None:
        return name in KEEPING
    return any(torch.Tag.pointwise in getattr(packet, form).tags for form in packet.overloads())


def _fact(call: Call, facts: Any) -> Fact | None:
    return facts.get(call.input) if isinstance(call.input, Tensor) else None


def _shapes(output: Any) -> list[Shape]:
    return [tuple(tensor.shape) for tensor in tensors_in(output)]


def _dims(value: Any, shape: Shape) -> tuple[int, ...]:
    """Axes of an argument ``dim``; ``None`` is all of them."""
    if value is None or isinstance(value, bool) or (isinstance(value, Sequence) and not value):
        return tuple(range(len(shape)))
    values = value if isinstance(value, Sequence) else (value,)
    return tuple(dim % len(shape) for dim in values)


def _reshaped(call: Call, facts: Any) -> Fact | None:
    fact = _fact(call, facts)
    return None if fact is None else fact.reshaped(call.shape, _shapes(call.output)[0])


def _permuted(call: Call, facts: Any) -> Fact | None:
    fact = _fact(call, facts)
    if fact is None:
        return None
    function = getattr(Tensor, call.name)
    # Sizes that tell the axes apart show where each of them goes.
    probe = torch.empty(tuple(range(1, len(call.shape) + 1)), device="meta")
    named = {name: value for name, value in call.kwargs.items() if name != "input"}
    moved = (
        function.__get__(probe)
        if not callable(function)
        else function(probe, *call.args[1:], **named)
    )
    return fact.moved({size - 1: dim for dim, size in enumerate(moved.shape)})


def _reduced(place: int) -> Rule:
    """The rule of a sum over axes that the argument at a place names."""

    def rule(call: Call, facts: Any) -> Fact | None:
        fact, dim = _fact(call, facts), call.get(place, "dim", call.kwargs.get("axis"))
        after = _shapes(call.output)[0]
        if isinstance(dim, Tensor) or "other" in call.kwargs:
            known = [(facts.get(t), tuple(t.shape)) for t in tensors_in((call.args, call.kwargs))]
            return meet([pair for pair in known if pair[0] is not None], after, call.place)
        if fact is None:
            return None
        dims = _dims(dim, call.shape)
        seen = fact.gathered(dims, call.shape)
        if len(after) == len(call.shape):
            return seen
        left = [dim for dim in range(len(call.shape)) if dim not in dims]
        return seen.moved({dim: i for i, dim in enumerate(left)})

    return rule


def _mixed(call: Call, facts: Any) -> Fact | None:
    """Every position of an axis sees all of it."""
    fact, dim = _fact(call, facts), call.get(1, "dim")
    if fact is None or not isinstance(dim, int):
        return None
    return fact.mixed(_dims(dim, call.shape))


def _normalised(call: Call, facts: Any) -> Fact | None:
    """Statistics of the map see all of it, but little of any position: a remark."""
    fact = _fact(call, facts)
    if fact is None:
        return None
    dims = range(2, len(call.shape))
    if call.name in {"layer_norm", "rms_norm"}:
        dims = call.axes(len(call.get(1, "normalized_shape")))
    elif call.name == "batch_norm" and not call.get(5, "training", False):
        return fact
    note = f"the statistics of {call.name.replace('_', ' ')} see the whole map and are not counted"
    return fact.noted(note if fact.touches(dims) else "")


def _linear(call: Call, facts: Any) -> Fact | None:
    fact = _fact(call, facts)
    return None if fact is None else fact.gathered([len(call.shape) - 1], call.shape)


def _product(call: Call, facts: Any) -> Fact | None:
    """A product of matrices, one of which does not depend on the input."""
    other = call.get(1, "other", call.kwargs.get("mat2"))
    left, right = _fact(call, facts), facts.get(other)
    after = _shapes(call.output)[0]
    if left is not None and right is not None:
        return None
    fact, tensor, summed = (left, call.input, -1) if left is not None else (right, other, -2)
    shape = tuple(tensor.shape)
    if fact is None or len(shape) < 2 or len(after) < len(shape):
        return None
    # With one position left where the sum was, the rest broadcasts.
    seen = fact.gathered([len(shape) + summed], shape)
    summed_shape = [1 if i == len(shape) + summed else n for i, n in enumerate(shape)]
    return meet([(seen, tuple(summed_shape))], after, call.place)


def _indexed(fact: Fact, shape: Shape, index: Sequence[Any], place: str) -> Fact | None:
    """What a part of a tensor sees; ``None`` where the index is a tensor."""
    if any(isinstance(item, (Tensor, list, bool)) for item in index):
        return None
    named = sum(item is not None and item is not Ellipsis for item in index)
    rest = [slice(None)] * (len(shape) - named)
    at = next((i for i, item in enumerate(index) if item is Ellipsis), len(index))
    windows, single, where, dim, target = {}, [], {}, 0, 0
    for item in (*index[:at], *rest, *index[at + 1 :]):
        if item is None:
            target += 1
            continue
        if isinstance(item, slice):
            start, _, step = item.indices(shape[dim])
            if (start, step) != (0, 1):
                windows[dim] = Window(step, start, start)
            where[dim] = target
            target += 1
        else:
            start = int(item) % shape[dim]
            windows[dim] = Window(1, start, start)
            single.append(dim)
        dim += 1
    ones = tuple(1 if i in single else n for i, n in enumerate(shape))
    return fact.through(windows, place).gathered(single, ones).moved(where)


def _getitem(call: Call, facts: Any) -> Fact | None:
    fact = _fact(call, facts)
    index = call.args[1] if isinstance(call.args[1], tuple) else (call.args[1],)
    return None if fact is None else _indexed(fact, call.shape, index, call.place)


def _at(dim: int, item: Any) -> tuple[Any, ...]:
    return (*[slice(None)] * dim, item)


def _parts(call: Call, facts: Any) -> Fact | list[Fact | None] | None:
    """Parts of a tensor along an axis: of one ``select`` or ``narrow``, or all that are cut."""
    fact, shapes = _fact(call, facts), _shapes(call.output)
    if fact is None:
        return None
    if call.name in {"select", "narrow"}:
        dim = _dims(call.get(1, "dim"), call.shape)[0]
        start = int(call.get(2, "index" if call.name == "select" else "start"))
        item = start if call.name == "select" else slice(start % call.shape[dim], None)
        return _indexed(fact, call.shape, _at(dim, item), call.place)
    place = 1 if call.name in {"unbind", "iter"} else 2
    dim = _dims(call.get(place, "dim", 0), call.shape)[0]
    if call.name in {"unbind", "iter"}:
        items: list[Any] = list(range(call.shape[dim]))
    else:
        starts = [sum(shape[dim] for shape in shapes[:i]) for i in range(len(shapes))]
        items = [slice(start, None) for start in starts]
    return [_indexed(fact, call.shape, _at(dim, item), call.place) for item in items]


def _joined(call: Call, facts: Any) -> Fact | None:
    """Tensors side by side: along channels they meet, along a map they follow each other."""
    tensors = list(call.get(0, "tensors"))
    after = _shapes(call.output)[0]
    dim = _dims(call.get(1, "dim", call.kwargs.get("axis", 0)), after)[0]
    parts, start = [], 0
    for tensor in tensors:
        fact, shape = facts.get(tensor), tuple(tensor.shape)
        if fact is not None and call.name == "stack":
            fact = fact.moved({i: i + (i >= dim) for i in range(len(shape))})
            shape = (*shape[:dim], 1, *shape[dim:])
        elif fact is not None and start:
            lost = [r for r in fact.reaches if r.lost and dim in r.dims]
            fact = fact if lost else fact.through({dim: Window(1, -start, -start)}, call.place)
        if fact is not None:
            parts.append((fact, (*shape[:dim], after[dim], *shape[dim + 1 :])))
        start += shape[dim]
    if not parts:
        return None
    seen = meet(parts, after, call.place)
    fixed = [fact for fact, _ in parts if not fact.is_map]
    differ = call.name == "stack" and any(fact.reaches != seen.reaches for fact in fixed)
    return seen.noted(unknown(call.place) if differ else "")


def _rolled(call: Call, facts: Any) -> Fact | None:
    fact, dims = _fact(call, facts), call.get(2, "dims", call.kwargs.get("dim"))
    return None if fact is None else fact.shuffled(_dims(dims, call.shape))


def _everywhere(call: Call, facts: Any) -> Fact:
    """Attention and recurrence: every position may see all others."""
    known = [facts.get(tensor) for tensor in tensors_in((call.args, call.kwargs))]
    seen = [fact for fact in known if fact is not None]
    return seen[0].everywhere().noted(*(note for fact in seen for note in fact.notes))


def _written(call: Call, facts: Any) -> Fact | None:
    """What a tensor sees after something was written into a part of it."""
    target, value = facts.get(call.input), call.args[2]
    written = facts.get(value) if isinstance(value, Tensor) else None
    if written is None:
        return target
    if target is not None and target.whole:
        return target
    return (target or written).everywhere(unknown(call.place)).noted(*written.notes)


def _rules() -> dict[str, Rule]:
    reshaping = ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "ravel")
    permuting = ("permute", "transpose", "movedim", "moveaxis", "swapaxes", "swapdims", "t")
    summing = ("mean", "sum", "nansum", "amax", "amin", "max", "min", "var", "std", "var_mean")
    more = ("std_mean", "prod", "logsumexp", "all", "any", "argmax", "argmin", "median")
    whole = ("scaled_dot_product_attention", "multi_head_attention_forward", "lstm", "gru")
    return {
        **dict.fromkeys((*reshaping, "view_as", "reshape_as", "_unsafe_view"), _reshaped),
        **dict.fromkeys((*permuting, "T", "mT", "H", "mH", "adjoint"), _permuted),
        **dict.fromkeys((*summing, *more), _reduced(1)),
        **dict.fromkeys(("norm", "linalg_vector_norm"), _reduced(2)),
        **dict.fromkeys(("softmax", "log_softmax", "cumsum", "cumprod"), _mixed),
        **dict.fromkeys(("layer_norm", "rms_norm", "group_norm", "instance_norm"), _normalised),
        "batch_norm": _normalised,
        "linear": _linear,
        **dict.fromkeys(("matmul", "bmm", "mm"), _product),
        "getitem": _getitem,
        **dict.fromkeys(("select", "narrow", "unbind", "iter"), _parts),
        **dict.fromkeys(("chunk", "split", "tensor_split"), _parts),
        **dict.fromkeys(("cat", "concat", "concatenate", "stack"), _joined),
        "roll": _rolled,
        "setitem": _written,
        **dict.fromkeys((*whole, "rnn_tanh", "rnn_relu"), _everywhere),
    }


RULES = _rules()
