"""Folded networks as files: what is written, what it computes, and what is refused."""

import copy
import re
from pathlib import Path

import pytest
import torch
from torch import nn

import sizeless
from sizeless import DiffStride2d, FlexConv1d, FlexConv2d, NIFFConv2d, SpectralPool2d, models
from sizeless.export import Exported, ExportError, exported, to_onnx, to_pt2, to_torchexport
from sizeless.models.small import DiffStrideNet, NIFFNet

IMAGE = (2, 1, 12, 10)
FORMATS = [to_onnx, to_torchexport]

formats = pytest.mark.parametrize("write", FORMATS)


@pytest.fixture(autouse=True)
def _packages(request):
    if "onnx" in request.node.nodeid:
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name)


class Branches(nn.Module):
    """Two inputs, a pool for two numbers of channels, two outputs."""

    def __init__(self):
        super().__init__()
        self.pool, self.conv = DiffStride2d(1.7), FlexConv2d(1, 3, 9, init_size=5)

    def forward(self, image, other):
        return self.pool(self.conv(image)) + self.pool(other), other.mean(dim=(2, 3))


NETWORKS = {
    "flexnet": lambda: (models.FlexNet(1, 4, 9, (4, 6)), IMAGE),
    "flextcn": lambda: (models.FlexTCN(2, 4, 20, 1, 4), (2, 2, 20)),
    "ccnn": lambda: (models.CCNN(1, 5, 9, 1, 8, norm="layer"), IMAGE),
    "volumes": lambda: (models.CCNN(1, 5, 5, 1, 8, ndim=3), (1, 1, 4, 5, 6)),
    "strides": lambda: (DiffStrideNet(1, 10, (4, 6)), IMAGE),
    "filters": lambda: (NIFFNet(1, 10, 4, 2), IMAGE),
    "audio": lambda: (models.AudioNet(1, (5, 3), (2, 1.7), widths=(4, 6)), IMAGE),
    "pads": lambda: (
        nn.Sequential(
            FlexConv2d(1, 4, 9, init_size=5, padding_mode="reflect"),
            FlexConv2d(4, 4, 9, init_size=5, padding_mode="replicate", stride=2),
            FlexConv2d(4, 4, 5, init_size=3, padding=0),
            NIFFConv2d(4, 4, groups=2, bias=True),
            SpectralPool2d(1.5, amplitude="sum"),
        ),
        (2, 1, 24, 22),
    ),
    "causal": lambda: (
        FlexConv1d(2, 4, 20, causal=True, init_size=5, dilation=2, padding_mode="replicate"),
        (3, 2, 30),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
@formats
def test_files_compute_what_the_network_does(name, write, tmp_path):
    network, shape = NETWORKS[name]()
    example = torch.randn(shape)
    plain, _ = sizeless.fold(network.eval(), example)
    made = write(plain, example, tmp_path / "file")
    assert isinstance(made, Exported)
    assert made.path == tmp_path / "file"
    assert made.bytes == made.path.stat().st_size
    assert made.error < 1e-4
    assert min(made.ms, made.torch_ms) > 0
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@formats
def test_several_inputs_and_outputs(write, tmp_path):
    network = Branches().eval()
    example = (torch.randn(1, 1, 12, 10), torch.randn(1, 1, 12, 10))
    plain, _ = sizeless.fold(network, example)
    made = write(plain, example, tmp_path / "file")
    assert made.error < 1e-4
    if write is to_onnx:
        import onnx

        graph = onnx.load(made.path).graph
        assert {
            value.type.tensor_type.shape.dim[0].dim_param for value in (*graph.input, *graph.output)
        } == {"batch"}


def test_onnx_has_ordinary_operators_only(tmp_path):
    import onnx

    network = nn.Sequential(FlexConv2d(1, 4, 9), NIFFConv2d(4, 4), DiffStride2d(1.7))
    example = torch.randn(IMAGE)
    plain, _ = sizeless.fold(network, example)
    made = to_onnx(plain, example, tmp_path / "model.onnx")
    model = onnx.load(made.path)
    onnx.checker.check_model(model)
    assert {node.op_type for node in model.graph.node} <= {
        "Conv",
        "MatMul",
        "Pad",
        "Reshape",
        "Transpose",
    }
    assert not model.functions
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"


def test_onnx_runs_any_number_of_samples(tmp_path):
    import onnxruntime

    example = torch.randn(1, 1, 12, 10)
    plain, _ = sizeless.fold(DiffStrideNet(1, 10, (4, 6)).eval(), example)
    made = to_onnx(plain, example, tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(made.path, providers=["CPUExecutionProvider"])
    for batch in (1, 4, 7):
        input = torch.randn(batch, 1, 12, 10)
        (output,) = session.run(None, {session.get_inputs()[0].name: input.numpy()})
        torch.testing.assert_close(torch.from_numpy(output), plain(input).detach())


def test_onnx_of_a_version_of_operators(tmp_path):
    import onnx

    made = to_onnx(nn.Conv2d(1, 2, 3), torch.randn(IMAGE), tmp_path / "model.onnx", opset=19)
    assert onnx.load(made.path).opset_import[0].version == 19


@formats
def test_a_file_says_nothing_about_this_machine(write, tmp_path):
    plain, _ = sizeless.fold(DiffStrideNet(1, 10, (4, 6)).eval(), torch.randn(IMAGE))
    content = write(plain, torch.randn(IMAGE), tmp_path / "file").path.read_bytes()
    for secret in (str(Path(__file__).parents[2]), str(Path(torch.__file__).parent)):
        assert secret.encode() not in content


@formats
def test_a_network_is_exported_as_it_is_in_evaluation(write, tmp_path):
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5)).train()
    before = copy.deepcopy(network.state_dict())
    write(network, torch.randn(IMAGE), tmp_path / "file")
    assert all(module.training for module in network.modules())
    assert all(torch.equal(network.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize(
    ("layer", "operator"),
    [
        (FlexConv2d(1, 2, 9, init_size=5), "sizeless.correlate.default"),
        (NIFFConv2d(1, 2), "sizeless.circular.default"),
        (DiffStride2d(), "sizeless.along.default"),
    ],
)
@formats
def test_layers_of_sizeless_are_refused(write, layer, operator, tmp_path):
    message = (
        f"the network has operators that other programs do not know: {operator}; turn layers of "
        "sizeless into plain ones first, with sizeless.fold"
    )
    with pytest.raises(ExportError, match=f"^{re.escape(message)}$"):
        write(layer, torch.randn(IMAGE), tmp_path / "file")
    assert not list(tmp_path.iterdir())


class Fourier(nn.Module):
    """Somebody's layer with transforms."""

    def forward(self, input):
        return torch.fft.irfft2(torch.fft.rfft2(input), s=input.shape[2:])


@formats
def test_transforms_are_refused(write, tmp_path):
    with pytest.raises(ExportError, match=r"aten\.fft_irfft2\.default, aten\.fft_rfft2\.default"):
        write(Fourier(), torch.randn(IMAGE), tmp_path / "file")


class OneSample(nn.Module):
    """Works for one number of samples only."""

    def forward(self, input):
        return input.reshape(2, -1)


@formats
def test_a_network_for_one_number_of_samples_is_refused(write, tmp_path):
    with pytest.raises(ExportError):
        write(OneSample(), torch.randn(2, 1, 3, 5), tmp_path / "file")


@formats
def test_a_wrong_file_is_not_written(write, tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "TOLERANCE", -1.0)
    file = tmp_path / "file"
    file.write_text("before")
    with pytest.raises(ExportError, match=r"computes something else: with . samples its relative"):
        write(nn.Conv2d(1, 4, 3), torch.randn(IMAGE), file)
    assert file.read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@formats
@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((nn.Conv2d, torch.randn(IMAGE)), TypeError, "model must be an instance of torch.nn"),
        ((nn.Conv2d(1, 1, 1), [1]), TypeError, "example_input must be a tensor or a tuple of"),
        ((nn.Conv2d(1, 1, 1), ()), TypeError, "example_input must be a tensor or a tuple of"),
        ((nn.Conv2d(1, 1, 1), torch.ones(())), ValueError, "example_input must have a batch"),
        ((nn.Conv2d(1, 1, 1), torch.ones(0, 1, 2, 2)), ValueError, "example_input must have"),
    ],
)
def test_wrong_arguments(write, arguments, error, message, tmp_path):
    with pytest.raises(error, match=f"^{message}"):
        write(*arguments, tmp_path / "file")


@pytest.mark.parametrize(("opset", "error"), [(0, ValueError), ("18", TypeError)])
def test_wrong_versions_of_onnx(opset, error, tmp_path):
    with pytest.raises(error, match=r"^opset must be"):
        to_onnx(nn.Conv2d(1, 1, 1), torch.randn(IMAGE), tmp_path / "file", opset=opset)


def test_missing_packages_of_onnx_are_named(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'sizeless\[export\]'") as failure:
        to_onnx(nn.Conv2d(1, 1, 1), torch.randn(IMAGE), tmp_path / "file")
    assert failure.value.name == "onnxscript"


def test_what_onnx_runtime_cannot_run_is_refused(tmp_path):
    with pytest.raises(ExportError, match=r"^ONNX Runtime cannot run the network: "):
        to_onnx(nn.Conv2d(1, 1, 1).double(), torch.randn(IMAGE).double(), tmp_path / "file")


def test_code_needs_a_compiler(monkeypatch, tmp_path):
    from torch._inductor import cpp_builder

    def none():
        raise RuntimeError("no compiler")

    monkeypatch.setattr(cpp_builder, "get_cpp_compiler", none)
    with pytest.raises(ExportError, match=r"^a compiled network needs a C\+\+ compiler"):
        to_pt2(nn.Conv2d(1, 1, 1), torch.randn(IMAGE), tmp_path / "file")


@pytest.mark.slow
def test_code_computes_what_the_network_does(tmp_path):
    plain, _ = sizeless.fold(DiffStrideNet(1, 10, (4, 6)).eval(), torch.randn(IMAGE))
    made = to_pt2(plain, torch.randn(IMAGE), tmp_path / "model.pt2")
    assert made.error < 1e-4
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt2"]
    loaded = torch._inductor.aoti_load_package(str(made.path))
    input = torch.randn(5, *IMAGE[1:])
    with torch.no_grad():
        torch.testing.assert_close(loaded(input), plain(input))
