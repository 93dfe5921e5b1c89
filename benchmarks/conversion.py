"""Convert, train, fold and export well-known networks, and write down what works.

    pip install -e '.[vision,export]'
    python benchmarks/conversion.py

Every convolutional classifier of torchvision, and a small member of each convolutional family of
timm, all with random weights. Each network has a process of its own and a row in
``conversion.csv``; a failure is a row with its reason. ``conversion.md`` has the table.
"""

from __future__ import annotations

import argparse
import copy
import logging
import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import onnxruntime
import timm
import torch
import torchvision
from conversion_table import STEPS, Row, read, write
from torch import Tensor, nn

import sizeless

TORCHVISION_LEFT_OUT = ("vit_*", "swin*", "maxvit*")
"""Transformers: attention has no size to learn."""

TIMM = """
    bat_resnext26ts convformer_s18 convmixer_768_32 convnext_atto convnextv2_atto
    cs3darknet_focus_s cspdarknet53 cspnext_tiny cspresnet50 cspresnext50 darknet17 darknetaa53
    densenet121 densenetblur121d dla34 dla46_c dm_nfnet_f0 dpn48b dpn68 ecaresnet26t
    edgenext_xx_small efficientnet_b0 efficientnet_blur_b0 efficientnet_cc_b0_4e efficientnet_es
    efficientnet_lite0 efficientnetv2_rw_t efficientvit_b0 ese_vovnet19b_slim fasternet_t0
    fastvit_t8 fbnetc_100 fbnetv3_b focalnet_tiny_srf gcresnext26ts gernet_s ghostnet_050
    ghostnetv2_100 ghostnetv3_050 hardcorenas_a hgnet_tiny hgnetv2_b0 hrnet_w18_small
    inception_next_atto inception_resnet_v2 inception_v3 inception_v4 lcnet_035 lcnetv2_small
    legacy_seresnet18 legacy_xception mambaout_femto mixnet_s mnasnet_small mobilenet_edgetpu_100
    mobilenetv1_100 mobilenetv2_035 mobilenetv3_small_050 mobilenetv4_conv_small_035 mobileone_s0
    mobilevit_xxs nf_regnet_b0 nf_resnet26 nfnet_l0 poolformer_s12 poolformerv2_s12 rdnet_tiny
    regnetv_040 regnetx_002 regnety_002 regnetz_005 repghostnet_050 repvgg_a0 repvit_m0_9
    res2net50_14w_8s resnest14d resnet10t resnet50_gn resnetaa34d resnetblur18 resnetrs50
    resnetv2_18d resnetv2_50x1_bit resnext26ts rexnet_100 sedarknet21 selecsls42 semnasnet_075
    seresnet18 shvit_s1 skresnet18 spnasnet_100 starnet_s050 swiftformer_xs tf_efficientnet_b0
    tf_mixnet_s tinynet_e tresnet_m vgg11 visformer_tiny vovnet39a xception41
"""

SIDE = 96
LARGER_IMAGES = {
    "bat_*": 256,
    "focalnet*": 224,
    "ghostnetv[23]*": 224,
    "inception_[rv]*": 299,
    "shvit*": 224,
    "visformer*": 224,
}
"""Sides of the images of networks that do not take 96 by 96, or then have maps of one position, on
which no size makes a difference."""

TOLERANCE, TOLERANCE64 = 1e-4, 1e-10
"""Largest relative error in float32, and in float64 where float32 says nothing."""

LOG = logging.getLogger("conversion")


def names() -> list[str]:
    """All networks."""
    listed = torchvision.models.list_models(module=torchvision.models)
    left_out = [name for name in listed for p in TORCHVISION_LEFT_OUT if fnmatch(name, p)]
    return [f"torchvision/{n}" for n in listed if n not in left_out] + [
        f"timm/{n}" for n in TIMM.split()
    ]


def network(name: str) -> nn.Module:
    """A network with random weights, in evaluation.

    Parameters that all start at one number, biases aside, are drawn from 0.5 to 1.5: many networks
    start with branches that are switched off, and would hide what is done to these.
    """
    package, _, model = name.partition("/")
    torch.manual_seed(0)
    if package == "timm":
        made = timm.create_model(model)
    else:
        options = {"init_weights": True} if model in ("googlenet", "inception_v3") else {}
        made = torchvision.models.get_model(model, weights=None, **options)
    with torch.no_grad():
        for path, parameter in made.named_parameters():
            if not path.endswith("bias") and bool((parameter == parameter.flatten()[0]).all()):
                parameter.uniform_(0.5, 1.5)
    return made.eval()


def measure_statistics(model: nn.Module, images: Tensor) -> None:
    """Let batch normalisation know the statistics of some images.

    With those that it starts with, signals fade from layer to layer and nothing is left to compare.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        model.train()(images)
    model.eval()
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def examine(row: Row, steps: Sequence[str]) -> None:
    """Take steps with one network, and fill in its row."""
    model = network(row.network)
    row.parameters = sum(p.numel() for p in model.parameters())
    row.image = next((s for p, s in LARGER_IMAGES.items() if fnmatch(row.network, f"*/{p}")), SIDE)
    image = torch.randn(2, 3, row.image, row.image)
    measure_statistics(model, torch.randn(4, 3, row.image, row.image))
    with torch.no_grad():
        output = model(image)
    if not bool(output.isfinite().all()) or float(output.std()) == 0:
        raise ValueError("the network itself gives nothing but zeros, or no finite number")
    for step in (flex, stride, niff):
        if step.__name__ in steps:
            setattr(row, f"{step.__name__}_failure", tried(step, row, model, image, output))


def tried(step: Callable[..., None], *arguments: Any) -> str:
    """Take a step, and say what failed: a failure is a result."""
    try:
        step(*arguments)
    except Exception as error:
        return told(error)
    return ""


def flex(row: Row, model: nn.Module, image: Tensor, output: Tensor) -> None:
    """Learned kernel sizes: the same function, trainable, folded and exported."""
    converted, report = sizeless.convert(model, image, conv="flex")
    row.flex_layers, row.flex_remark = counts(report), why_none(report)
    with torch.no_grad():
        expected = converted(image)
    row.flex_error = error_of(expected, output)
    if not row.flex_error <= TOLERANCE:
        judge_in_float64(row, model, image, output)
    folded, _ = sizeless.fold(converted, image)
    left = [m for m in folded.modules() if type(m).__module__.startswith("sizeless")]
    if left:
        raise ValueError(f"{len(left)} modules of sizeless are left after fold")
    with torch.no_grad():
        row.fold_error = error_of(folded(image), expected)
    row.onnx_error = error_of(through_onnx(folded, image), expected)
    row.flex_sizes = train(converted, image)
    if not row.fold_error <= TOLERANCE:
        raise ValueError(f"folded, its error is {row.fold_error:.1e}")
    if not row.onnx_error <= TOLERANCE:
        own = error_of(through_onnx(model, image), output)
        raise ValueError(f"exported, its error is {row.onnx_error:.1e}; the original's {own:.1e}")


def judge_in_float64(row: Row, model: nn.Module, image: Tensor, output: Tensor) -> None:
    """Whether it is rounding that makes the difference, as networks may enlarge it at will."""
    exact = copy.deepcopy(model).double()
    converted, _ = sizeless.convert(exact, image.double(), conv="flex")
    with torch.no_grad():
        expected = exact(image.double())
        row.rounding = error_of(output, expected)
        row.flex_error64 = error_of(converted(image.double()), expected)
    if not row.flex_error64 <= TOLERANCE64:
        raise ValueError(f"the converted network's error is {row.flex_error:.1e}")


def stride(row: Row, model: nn.Module, image: Tensor, output: Tensor) -> None:
    """Learned strides: a network that trains."""
    converted, report = sizeless.convert(model, image, downsample="diffstride")
    row.stride_layers, row.stride_remark = counts(report), why_none(report)
    check_output(converted, image, output)
    row.stride_sizes = train(converted, image)


def niff(row: Row, model: nn.Module, image: Tensor, output: Tensor) -> None:
    """Frequency filters: a network that trains."""
    converted, report = sizeless.convert(model, image, conv="niff")
    row.niff_layers, row.niff_remark = counts(report), why_none(report)
    check_output(converted, image, output)
    row.niff_sizes = train(converted, image)


def counts(report: sizeless.surgery.Report) -> str:
    """Layers changed and left alone."""
    return f"{len(report.changed)}/{len(report.left_alone)}"


def why_none(report: sizeless.surgery.Report) -> str:
    """The commonest reason for which no layer was changed, sizes of one tap aside."""
    reasons = Counter(change.reason for change in report.left_alone if "1x1" not in change.reason)
    return "" if report.changed or not reasons else reasons.most_common(1)[0][0]


def error_of(output: Tensor, expected: Tensor) -> float:
    """Relative error of an output that must be that of another network."""
    return float((output.double() - expected.double()).norm() / expected.double().norm())


def check_output(model: nn.Module, image: Tensor, expected: Tensor) -> None:
    """The output of a network that computes something else has its shape, and is finite.

    Its batch normalisation has to see its own signals first.
    """
    measure_statistics(model, torch.randn(4, *image.shape[1:]))
    with torch.no_grad():
        output = model(image)
    if output.shape != expected.shape or not bool(output.isfinite().all()):
        raise ValueError(f"the output of shape {tuple(output.shape)} is not finite, or differs")


def train(model: nn.Module, image: Tensor) -> str:
    """Take one step, and count the parameters of sizes that a gradient reached."""
    sized = list(size_parameters(model))
    if not sized:
        return ""
    model.train()
    for module in model.modules():
        if any(word in type(module).__name__ for word in ("Drop", "StochasticDepth")):
            module.eval()
    optimizer = torch.optim.SGD(sizeless.param_groups(model, lr=1e-4))
    output = model(image)
    main = output if isinstance(output, Tensor) else output[0]
    loss = main.square().mean()
    loss.backward()
    reached = [p for p in sized if p.grad is not None and bool(p.grad.isfinite().all())]
    reached = [p for p in reached if bool(p.grad.count_nonzero())]
    if not bool(loss.isfinite()) or len(reached) < len(sized):
        raise ValueError(f"loss {float(loss)}, gradients reach {len(reached)} of {len(sized)}")
    optimizer.step()
    if not bool(model(image)[0].isfinite().all()):
        raise ValueError("after a step of SGD the output is not finite")
    return f"{len(reached)}/{len(sized)}"


def size_parameters(model: nn.Module) -> Iterator[nn.Parameter]:
    """Windows of kernels, strides, and networks that make filters.

    The constant of an imaginary part has no odd part, so that nothing ever reaches it.
    """
    for module in model.modules():
        if isinstance(module, sizeless.nn.FlexConvNd):
            yield from module.window.size_parameters()
        elif isinstance(module, sizeless.nn.DiffStrideNd):
            yield module.log2_stride
        elif isinstance(module, sizeless.nn.NIFFConvNd):
            silent = module.imag.output.bias
            both = (*module.real.parameters(), *module.imag.parameters())
            yield from (parameter for parameter in both if parameter is not silent)


def through_onnx(model: nn.Module, image: Tensor) -> Tensor:
    """The output of the exported network."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.onnx")
        torch.onnx.export(model, (image,), file, dynamo=True, verbose=False, optimize=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = 1, 3
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
        (output,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
    return torch.from_numpy(output)


def told(error: BaseException) -> str:
    """An error in one line."""
    LOG.debug("".join(traceback.format_exception(error)))
    return f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"


def in_a_process(name: str, steps: Sequence[str], timeout: float) -> Row:
    """Examine a network in a process of its own, which may die or take too long."""

    def work(send: Any) -> None:
        torch.set_num_threads(1)
        row = Row(name)
        try:
            examine(row, steps)
        except Exception as error:
            row.failure = told(error)
        send.send(row)

    start = time.perf_counter()
    context = multiprocessing.get_context("fork")
    receive, send = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(send,))
    process.start()
    send.close()
    try:
        row = receive.recv() if receive.poll(timeout) else Row(name, failure="out of time")
    except EOFError:
        process.join()
        code = process.exitcode
        killed = "it was killed, most likely for want of memory"
        row = Row(name, failure=killed if code == -9 else f"its process died with {code}")
    process.kill()
    process.join()
    row.seconds = round(time.perf_counter() - start, 1)
    return row


def merged(
    before: Mapping[str, Any] | None, now: dict[str, Any], steps: Sequence[str]
) -> dict[str, Any]:
    """A row with the columns of other steps as they were."""
    if before is None or set(steps) == set(STEPS):
        return now
    return {
        name: value if name.split("_")[0] in (*steps, "failure") else before.get(name, value)
        for name, value in now.items()
    }


def main(done: Callable[[str], None] = LOG.info) -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", default="*", help="pattern of names, such as 'timm/*'")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of the results")
    parser.add_argument("--resume", action="store_true", help="keep the rows that are there")
    parser.add_argument(
        "--steps", nargs="+", choices=STEPS, default=STEPS, help="the others' columns stay"
    )
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds for a network")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    listed = names()
    rows: dict[str, Any] = read(arguments.out / "conversion.csv")
    for name in listed:
        if not fnmatch(name, arguments.only) or (arguments.resume and name in rows):
            continue
        row = in_a_process(name, arguments.steps, arguments.timeout)
        rows[name] = merged(rows.get(name), asdict(row), arguments.steps)
        write(arguments.out, rows, listed)
        done(f"{name}: {row.seconds:.0f} s {row.failures or 'passes'}")
    write(arguments.out, rows, listed)


if __name__ == "__main__":
    logging.basicConfig(format="%(message)s")
    LOG.setLevel(os.environ.get("LOG_LEVEL", "INFO"))
    main()
