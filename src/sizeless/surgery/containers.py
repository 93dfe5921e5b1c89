"""Networks and blocks of this library as graphs of torch, which need the library no more."""

from __future__ import annotations

import copy
from typing import Any

from torch import fx, nn

from sizeless.nn import FlexConvNd
from sizeless.surgery.parts import put, take_hooks
from sizeless.surgery.plain import SIZED


def depends_on_map(module: nn.Module) -> bool:
    """Whether the plain form of a layer holds for maps of one size."""
    return isinstance(module, SIZED) and not isinstance(module, FlexConvNd)


def is_ours(module: nn.Module) -> bool:
    """Whether a module's class is defined in this library."""
    return type(module).__module__.split(".")[0] == __name__.split(".")[0]


class _Tracer(fx.Tracer):
    """Looks into our own blocks and into ``nn.Sequential``, and takes all else as it is."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        if isinstance(m, SIZED):
            return True
        if isinstance(m, (nn.Sequential, nn.ModuleList)):
            return False
        return not is_ours(m)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        try:
            return super().call_module(m, forward, args, kwargs)
        except NoGraphError:
            raise
        except Exception as error:
            raise NoGraphError(self.path_of_module(m), m, error) from error


class NoGraphError(ValueError):
    """One of our modules that cannot be traced, and so has no plain form."""

    def __init__(self, path: str, module: nn.Module, error: Exception) -> None:
        super().__init__(path, module, error)
        self.path, self.module, self.error = path, module, error


def as_graph(block: nn.Module) -> fx.GraphModule:
    """Return one of our blocks as a graph; a layer that it calls twice is two layers there.

    Layers with learned sizes stay; their copies share parameters.

    Raises:
        NoGraphError: If ``torch.fx`` cannot trace it.
    """
    tracer = _Tracer()
    try:
        graph = tracer.trace(block)
    except NoGraphError:
        raise
    except Exception as error:
        raise NoGraphError("", block, error) from error
    # A pickle of the graph would name the tracer, and need this library.
    graph._tracer_cls = None
    module = fx.GraphModule(tracer.root, graph, type(block).__name__)
    for path, part in module.named_modules():
        part.training = block.get_submodule(path).training
    seen: set[str] = set()
    for node in module.graph.nodes:
        if node.op != "call_module" or not depends_on_map(module.get_submodule(node.target)):
            continue
        if node.target in seen:
            another = twin(module.get_submodule(node.target))
            node.target = _free_name(module, node.target)
            module.add_submodule(node.target, another)
        seen.add(node.target)
    module.recompile()
    take_hooks(module, block)
    return module


def twin(module: nn.Module) -> Any:
    """A copy of a module with the same parameters, and calls of its own."""
    memo = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    return copy.deepcopy(module, memo)


def _free_name(module: nn.Module, path: str) -> str:
    taken = {name for name, _ in module.named_modules()}
    count = 1
    while f"{path}_{count}" in taken:
        count += 1
    return f"{path}_{count}"


def without_our_blocks(model: nn.Module) -> nn.Module:
    """Turn every outermost block of this library into a graph, in place, and return the model."""
    places = [
        (path, module)
        for path, module in model.named_modules(remove_duplicate=False)
        if is_ours(module) and not isinstance(module, SIZED)
    ]
    outermost = [
        (path, module)
        for path, module in places
        if not any(
            path != other and (other == "" or path.startswith(f"{other}.")) for other, _ in places
        )
        and not _within_a_sized_layer(model, path)
    ]
    graphs: dict[nn.Module, nn.Module] = {}
    for path, module in outermost:
        if module not in graphs:
            try:
                graphs[module] = as_graph(module)
            except NoGraphError as failure:
                inner = ".".join(filter(None, (path, failure.path))) or "the top"
                raise ValueError(
                    f"fold cannot replace the {type(failure.module).__name__} at {inner!r}: it has "
                    "no plain form; put a layer of sizeless.nn in its place"
                ) from failure.error
        model = put(model, path, graphs[module])
    return model


def _within_a_sized_layer(model: nn.Module, path: str) -> bool:
    parts = path.split(".")
    return any(
        isinstance(model.get_submodule(".".join(parts[:end])), SIZED) for end in range(len(parts))
    )


def with_layers_of_their_own(model: nn.Module) -> nn.Module:
    """Let every path to a layer whose plain form is for one size of maps have its own, in place.

    Copies share parameters. So a shared stride can be told apart where it is called.
    """
    seen: set[nn.Module] = set()
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if depends_on_map(module) and path:
            if module in seen:
                model.set_submodule(path, twin(module))
            seen.add(module)
    return model
