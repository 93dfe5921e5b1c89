"""The mathematics: pure functions, tensors in, tensors out.

``sizeless.functional.naive`` holds the slow, obviously right twin of each.
"""

from sizeless.functional import naive
from sizeless.functional.circular import circular_convolve, hermitian_half, spatial_kernel
from sizeless.functional.convolution import convolve, convolve_factored, plan
from sizeless.functional.fft import good_length
from sizeless.functional.limits import clamp_straight_through, ramp
from sizeless.functional.low_pass import low_pass_window
from sizeless.functional.measured import tuning
from sizeless.functional.plans import Plan, Step, use_method
from sizeless.functional.resampling import resample, resampling_matrix

__all__ = [
    "Plan",
    "Step",
    "circular_convolve",
    "clamp_straight_through",
    "convolve",
    "convolve_factored",
    "good_length",
    "hermitian_half",
    "low_pass_window",
    "naive",
    "plan",
    "ramp",
    "resample",
    "resampling_matrix",
    "spatial_kernel",
    "tuning",
    "use_method",
]
