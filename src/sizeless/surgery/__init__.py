"""Operations on whole networks: sizes that are learned, and sizes that are fixed again."""

from sizeless.surgery.architecture import architecture
from sizeless.surgery.convert import convert
from sizeless.surgery.fold import fold
from sizeless.surgery.report import Change, Report

__all__ = ["Change", "Report", "architecture", "convert", "fold"]
