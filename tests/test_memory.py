"""Peak memory of a call."""

import sys

import pytest
import torch

from lightning_expedite.benchmarking import memory
from lightning_expedite.benchmarking.memory import peak_memory_mib

CPU = torch.device("cpu")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process its peak")
def test_peak_memory_is_what_the_call_needs():
    def use(mebibytes):
        return peak_memory_mib(lambda: torch.ones(mebibytes << 18).sum(), CPU)

    assert use(64) == pytest.approx(64, abs=8)
    assert use(200) == pytest.approx(200, abs=8)
    assert use(1) < 8  # the peak of an earlier call is forgotten


def test_a_system_that_tells_no_peak_and_a_process_of_any_name(monkeypatch, tmp_path):
    status = tmp_path / "status"
    monkeypatch.setattr(memory, "_STATUS", status)
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "clear_refs")
    assert memory.resident_mib("VmHWM") is None
    assert peak_memory_mib(lambda: pytest.fail("called for nothing"), CPU) is None
    status.write_text("Name:\tprüfung\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n", encoding="utf-8")
    assert (memory.resident_mib("VmHWM"), memory.resident_mib("VmRSS")) == (2, 1)
    assert peak_memory_mib(lambda: None, CPU) == 1
    monkeypatch.setattr(memory, "_CLEAR_REFS", tmp_path / "no" / "clear_refs")
    assert memory.reset_resident_peak() is False
    assert peak_memory_mib(lambda: None, CPU) is None
