"""Writing folded networks to files that run without this library."""

from sizeless.export.exported import Exported, ExportError
from sizeless.export.onnx_file import to_onnx
from sizeless.export.programs import to_pt2, to_torchexport

__all__ = ["ExportError", "Exported", "to_onnx", "to_pt2", "to_torchexport"]
