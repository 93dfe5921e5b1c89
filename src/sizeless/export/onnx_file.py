"""Networks as ONNX files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._files import write_atomically
from sizeless._validate import positive_int
from sizeless.export.exported import (
    Exported,
    ExportError,
    Run,
    check,
    inputs_of,
    one_line,
    program_of,
    refuse,
)

SPECTRAL = {"DFT", "STFT"}
"""ONNX operators with complex numbers in them."""


def to_onnx(
    model: nn.Module,
    example_input: Tensor | tuple[Tensor, ...],
    path: str | Path,
    *,
    opset: int | None = None,
) -> Exported:
    """Write a plain network as an ONNX file for any number of samples.

    The file is run by ONNX Runtime on the CPU and compared with the network before it gets its
    name, so a wrong one is never there.

    Args:
        model: A network without learned sizes, as ``sizeless.fold`` returns. Exported is what it
            does in evaluation.
        example_input: An input tensor, or a tuple of all of them. The first axis of each is the
            number of samples.
        path: The file. What was there before is replaced.
        opset: Version of ONNX's operators; ``None`` takes the one that torch recommends.

    Returns:
        The file, its size, its error and its speed.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If ``opset`` is below 1 or the example has no sample.
        ExportError: If the network cannot be exported, has Fourier transforms or complex numbers,
            or if ONNX Runtime computes something else.
        ModuleNotFoundError: If onnx, onnxscript or onnxruntime is not installed.

    Examples:
        >>> import sizeless, torch
        >>> model = sizeless.FlexConv2d(1, 4, kernel_size=33, init_size=5)
        >>> image = torch.randn(1, 1, 32, 32)
        >>> plain, _ = sizeless.fold(model, image)
        >>> to_onnx(plain, image, "model.onnx").error < 1e-4  # doctest: +SKIP
        True
    """
    inputs = inputs_of(example_input)
    if opset is not None:
        positive_int("opset", opset)
    _check_packages()
    program = program_of(model, inputs)
    # Given again for its name, which all inputs share.
    shapes: Any = ({0: "batch"}, *({} for _ in inputs[1:]))
    try:
        made: Any = torch.onnx.export(
            program,
            inputs,
            dynamo=True,
            dynamic_shapes=shapes,
            opset_version=opset,
            verbose=False,
        )
    except Exception as error:
        raise ExportError(f"torch.onnx cannot write the network: {one_line(error)}") from error
    refuse("the ONNX graph", SPECTRAL & set(operators(made.model_proto)))
    _forget_sources(made.model.graph)
    content: bytes = made.model_proto.SerializeToString()
    figures = check(session(content), model, inputs, "ONNX Runtime")
    path = Path(path)
    write_atomically(path, lambda file: file.write(content))
    return Exported(path, len(content), **figures)


def operators(model: Any) -> Iterable[str]:
    """Types of all nodes of an ONNX model, those of its functions and branches too."""
    waiting = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    while waiting:
        node = waiting.pop()
        yield node.op_type
        for attribute in node.attribute:
            waiting += [*attribute.g.node, *(n for graph in attribute.graphs for n in graph.node)]


def session(content: bytes) -> Run:
    """Return what runs an ONNX file on the CPU, with as many threads as torch has.

    Raises:
        ExportError: If ONNX Runtime does not know its operators.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    try:
        made = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ExportError(f"ONNX Runtime cannot run the network: {one_line(error)}") from error
    names = [input.name for input in made.get_inputs()]

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        values = {
            name: input.detach().cpu().numpy() for name, input in zip(names, inputs, strict=True)
        }
        outputs = made.run(None, values)
        return tuple(torch.from_numpy(output).to(inputs[0].device) for output in outputs)

    return run


def _forget_sources(graph: Any) -> None:
    """Remove the places in source files that torch notes at every node."""
    for node in graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None


def _check_packages() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f"ONNX files need the package {error.name}, which is missing; install it with: "
            "pip install 'sizeless[export]'",
            name=error.name,
        ) from error
