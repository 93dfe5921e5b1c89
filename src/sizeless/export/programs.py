"""Networks as programs of torch: a graph to load again, or machine code."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sizeless._files import write_atomically
from sizeless.export.exported import Exported, ExportError, check, inputs_of, one_line, program_of


def to_torchexport(
    model: nn.Module, example_input: Tensor | tuple[Tensor, ...], path: str | Path
) -> Exported:
    """Write a plain network as a program for ``torch.export.load``, for any number of samples.

    It is loaded again and compared with the network before the file gets its name. The example is
    not in the file.

    Args:
        model: A network without learned sizes, as ``sizeless.fold`` returns. Exported is what it
            does in evaluation.
        example_input: An input tensor, or a tuple of all of them. The first axis of each is the
            number of samples.
        path: The file, whose name should end in ``.pt2``.

    Returns:
        The file, its size, its error and its speed.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the example has no sample.
        ExportError: If the network cannot be exported, has Fourier transforms or complex numbers,
            or if the program computes something else.

    Examples:
        >>> import tempfile, torch
        >>> model = torch.nn.Conv2d(1, 4, 3)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     made = to_torchexport(model, torch.randn(1, 1, 8, 8), f"{folder}/model.pt2")
        >>> made.error
        0.0
    """
    inputs = inputs_of(example_input)
    program = program_of(model, inputs)
    program.example_inputs = None
    buffer = io.BytesIO()
    torch.export.save(program, buffer)
    content = buffer.getvalue()
    buffer.seek(0)
    loaded: Any = torch.export.load(buffer)
    figures = check(loaded.module(), model, inputs, "the program")
    path = Path(path)
    write_atomically(path, lambda file: file.write(content))
    return Exported(path, len(content), **figures)


def to_pt2(
    model: nn.Module, example_input: Tensor | tuple[Tensor, ...], path: str | Path
) -> Exported:
    """Compile a plain network to machine code that ``torch._inductor.aoti_load_package`` loads.

    The code is made for the kind of device on which the example is, by AOTInductor, in half a
    minute or so. It is loaded and compared with the network before the file gets its name.

    Args:
        model: A network without learned sizes, as ``sizeless.fold`` returns. Exported is what it
            does in evaluation.
        example_input: An input tensor, or a tuple of all of them. The first axis of each is the
            number of samples.
        path: The file, whose name should end in ``.pt2``.

    Returns:
        The file, its size, its error and its speed.

    Raises:
        TypeError: If an argument has the wrong type.
        ValueError: If the example has no sample.
        ExportError: If there is no C++ compiler, if the network cannot be exported or has Fourier
            transforms or complex numbers, or if the code computes something else.

    Examples:
        >>> import torch
        >>> model, image = torch.nn.Conv2d(1, 4, 3), torch.randn(1, 1, 8, 8)
        >>> to_pt2(model, image, "model.pt2").error < 1e-4  # doctest: +SKIP
        True
    """
    inputs = inputs_of(example_input)
    _check_compiler()
    program = program_of(model, inputs)
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "model.pt2"
        try:
            torch._inductor.aoti_compile_and_package(program, package_path=str(package))
            loaded = torch._inductor.aoti_load_package(str(package))
        except Exception as error:
            raise ExportError(f"AOTInductor cannot compile it: {one_line(error)}") from error
        figures = check(loaded, model, inputs, "the compiled network")
        content = package.read_bytes()
    path = Path(path)
    write_atomically(path, lambda file: file.write(content))
    return Exported(path, len(content), **figures)


def _check_compiler() -> None:
    from torch._inductor import cpp_builder

    try:
        cpp_builder.get_cpp_compiler()
    except Exception as error:
        raise ExportError(
            "a compiled network needs a C++ compiler, and none was found: install g++ or clang++, "
            "or name one in the environment variable CXX"
        ) from error
