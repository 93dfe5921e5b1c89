from __future__ import annotations

import datetime

import torch

from sizeless.bench import machine, peers
from sizeless.functional import plan_table


def test_what_decides_about_timings_is_described() -> None:
    found = machine.describe("cpu", 3)
    assert found["threads"] == 3
    assert found["torch"] == torch.__version__
    assert found["device_name"] == found["cpu"] != ""
    assert found["packages"].keys() == {"sizeless", "torchvision", *peers.PACKAGES}
    assert found["packages"]["sizeless"]
    assert machine._version("no-such-package") is None


def test_a_machine_without_the_linux_file_has_a_name(tmp_path) -> None:
    assert plan_table.processor(tmp_path / "none")
    (tmp_path / "cpuinfo").write_text("processor: 0\nmodel name\t: Some CPU @ 3 GHz\n")
    assert plan_table.processor(tmp_path / "cpuinfo") == "Some CPU @ 3 GHz"


def test_rates_are_those_of_a_computer() -> None:
    rates = machine.measure_rates("cpu", 0.0)
    assert 1e8 < rates.flops < 1e15
    assert 1e8 < rates.bytes < 1e13


def test_now_is_a_time_in_utc() -> None:
    assert datetime.datetime.fromisoformat(machine.now()).utcoffset() == datetime.timedelta(0)
