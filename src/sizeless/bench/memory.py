"""Peak memory of one run, whatever allocates it: read from the system in a process of its own.

A counter of tensors does not see what an opaque operator or a library allocates; the resident
memory of the process does. A server process that has imported torch and computed nothing forks
for every measurement, which takes milliseconds.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import IO

import torch
from torch.nn import functional as F

from sizeless.functional.plan_table import CACHE

Make = Callable[[], Callable[[], object]]
"""Builds the inputs, and returns what to run."""

PATIENCE = 120
"""Seconds after which a measurement is given up."""

# Blocks above 64 KiB go back to the system when they are freed, so that resident memory is what is
# in use.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
SERVE = "from sizeless.bench.memory import serve; serve()"
STATUS = Path("/proc/self/status")
CLEAR = Path("/proc/self/clear_refs")


class MemoryMeter:
    """Measures peaks on the CPU, each in a fresh process; a context manager.

    Args:
        threads: Threads of torch in these processes.
        plans: Whether they follow the plans that were measured on this machine.
    """

    def __init__(self, threads: int, plans: bool = False) -> None:
        self.threads, self.plans = threads, plans
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> MemoryMeter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def peak(self, make: Make) -> float | None:
        """Return how many bytes a run of what ``make`` returns needs beyond its inputs.

        It is the second run: what is made once and kept counts, what only making it takes does not.

        Args:
            make: Builds the inputs and returns the run; it must pickle.

        Returns:
            Bytes, or ``None`` where the run fails, takes too long, or the system cannot fork.
        """
        if not hasattr(os, "fork"):
            return None
        request = pickle.dumps((make, self.threads))
        server = self._server or self._start()
        try:
            _open(server.stdin).write(request)
            _open(server.stdin).flush()
            answer: float | None = pickle.load(_open(server.stdout))
        except (BrokenPipeError, EOFError):
            self.close()
            return None
        return answer

    def close(self) -> None:
        """End the server."""
        if self._server is not None:
            # An interrupted request cannot be completed any more.
            with suppress(BrokenPipeError):
                _open(self._server.stdin).close()
            self._server.wait()
            _open(self._server.stdout).close()
            self._server = None

    def _start(self) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **ALLOCATOR, "PYTHONPATH": os.pathsep.join(sys.path)}
        if not self.plans:
            environment[CACHE] = ""
        self._server = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
        )
        return self._server


def _open(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise RuntimeError("the memory server was started without pipes")
    return stream


def serve() -> None:
    """Answer requests from the standard input until it ends; one forked process for each."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # What Python imports at the first gradient belongs to no run; this starts no threads.
    one = torch.ones(1, requires_grad=True)
    torch.autograd.grad(one * one, one, torch.ones(1))
    while True:
        try:
            make, threads = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        # Collecting garbage in the fork would copy every page that holds a Python object.
        gc.freeze()
        pickle.dump(_in_a_fork(make, threads), answers)
        answers.flush()


def _in_a_fork(make: Make, threads: int) -> float | None:
    reader, writer = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(reader)
        signal.alarm(PATIENCE)
        try:
            os.write(writer, pickle.dumps(peak_here(make, threads)))
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        answer = pipe.read()
    os.waitpid(process, 0)
    return pickle.loads(answer) if answer else None


def peak_here(make: Make, threads: int) -> float:
    """Return the peak of a second run in this process, in bytes beyond its inputs.

    Args:
        make: Builds the inputs and returns the run.
        threads: Threads for torch.
    """
    torch.set_num_threads(threads)
    _wake_libraries()
    run = make()
    gc.collect()
    before = _start_of_peak()
    run()
    _start_of_peak()
    run()
    return max(_peak() - before, 0.0)


def _wake_libraries() -> None:
    """Start thread pools and load tables, which belong to no run in particular."""
    image = torch.ones(1, 4, 16, 16, requires_grad=True)
    weight = torch.ones(4, 4, 3, 3, requires_grad=True)
    product = torch.fft.irfft2(torch.fft.rfft2(F.conv2d(image, weight)))
    torch.autograd.grad(product.sum() + (image.flatten(1) @ image.flatten(1).T).sum(), image)


def _start_of_peak() -> float:
    """Forget the peak so far where the system can, and return what a peak is counted from."""
    try:
        CLEAR.write_text("5", encoding="ascii")
    except OSError:
        return _peak()
    return _status("VmRSS") - _status("RssFile")


def _peak() -> float:
    if STATUS.exists():
        # Code that was read from libraries is not what a run allocates.
        return _status("VmHWM") - _status("RssFile")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return float(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)


def _status(name: str) -> float:
    for line in STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(f"{name}:"):
            return 1024.0 * int(line.split()[1])
    raise RuntimeError(f"{STATUS} has no line {name}")
