"""Runtime: what is asked for is there, or it is said."""

import copy
import shutil

import pytest
import torch
from torch import nn

from lauter.data.group import ALONE
from lauter.errors import ConfigError
from lauter.models import InputSpec, Network, wrap_module
from lauter.training import runtime as runtime_module
from lauter.training.runtime import Runtime, RuntimeConfig, has_bf16


def test_the_processor_in_float32() -> None:
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32"))
    assert runtime.device == torch.device("cpu")
    assert runtime.precision == "32"
    with runtime.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.float32


def test_bf16_where_it_is_asked_for() -> None:
    runtime = Runtime(RuntimeConfig(device="cpu", precision="bf16"))
    assert runtime.precision == "bf16"
    with runtime.autocast():
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16


@pytest.mark.parametrize("able", [True, False])
def test_auto_takes_bf16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, able: bool) -> None:
    monkeypatch.setattr(runtime_module, "has_bf16", lambda device: able)
    assert Runtime(RuntimeConfig(device="cpu")).precision == ("bf16" if able else "32")


def test_a_processor_has_bf16_by_its_own_instructions(monkeypatch: pytest.MonkeyPatch) -> None:
    for avx, amx in ((True, False), (False, True), (False, False)):
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda value=avx: value)
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda value=amx: value)
        assert has_bf16("cpu") == (torch.backends.mkldnn.is_available() and (avx or amx))


def test_a_device_that_is_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for device in ("cuda", "mps"):
        with pytest.raises(ConfigError, match=f"device {device} was asked for.*--runtime.device cpu"):
            Runtime(RuntimeConfig(device=device))  # type: ignore[arg-type]
    assert Runtime(RuntimeConfig(device="auto")).device == torch.device("cpu")


def test_a_launch_of_one_is_a_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    runtime = Runtime(RuntimeConfig(device="cpu"))
    assert runtime.device.type == "cpu"
    assert runtime.group is ALONE
    assert runtime.alone().group is ALONE


def test_several_processes_need_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2 but RANK is not set"):
        Runtime(RuntimeConfig(device="cpu"))


def test_several_processes_do_not_choose_whether_to_compile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="compile auto times networks in one process, and 2 were launched"):
        Runtime(RuntimeConfig(device="cpu", compile="auto"))


def test_a_teacher_is_split_among_accelerators_only() -> None:
    with pytest.raises(ConfigError, match="split_teacher splits a teacher over the accelerators"):
        Runtime(RuntimeConfig(device="cpu", split_teacher=True))


def test_normalisation_is_left_alone_in_one_process() -> None:
    network = small_network()
    with Runtime(RuntimeConfig(device="cpu")).common_norms([network]):
        assert not any(isinstance(part, nn.SyncBatchNorm) for part in network.modules())


def test_threads_are_set_where_asked_for() -> None:
    before = torch.get_num_threads()
    try:
        Runtime(RuntimeConfig(device="cpu", threads=2))
        assert torch.get_num_threads() == 2
        Runtime(RuntimeConfig(device="cpu", threads=0))
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"device": "tpu"}, "device must be auto, cpu, cuda or mps, not 'tpu'"),
        ({"precision": "16"}, "precision must be auto, 32 or bf16, not '16'"),
        ({"threads": -1}, "threads and workers must be 0 or more, not -1 and 2"),
        ({"workers": -1}, "threads and workers must be 0 or more, not 0 and -1"),
        ({"wait_seconds": 0}, "wait_seconds must be above 0, not 0"),
    ],
)
def test_settings_out_of_range_are_refused(setting: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RuntimeConfig(**setting)  # type: ignore[arg-type]


def test_compiled_backbones_compute_the_same() -> None:
    if not any(shutil.which(compiler) for compiler in ("g++", "clang++", "c++")):
        pytest.skip("no C++ compiler here, which torch.compile needs")
    plain, compiled = small_network(), small_network()
    pixels = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8)
    Runtime(RuntimeConfig(device="cpu", precision="32", compile=True)).place(compiled)
    assert compiled.backbone._compiled_call_impl is not None
    torch.testing.assert_close(compiled(pixels), plain(pixels))
    average = copy.deepcopy(compiled)
    with torch.no_grad():
        average.get_parameter("backbone.module.1.weight").zero_()
    torch.testing.assert_close(compiled(pixels), plain(pixels))
    torch.testing.assert_close(average(pixels).features, torch.zeros(4, 5))


def test_nothing_is_compiled_unasked() -> None:
    network = small_network()
    Runtime(RuntimeConfig(device="cpu")).place(network)
    assert network.backbone._compiled_call_impl is None


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"no C\+\+ compiler on the path.*leave out --runtime.compile"):
        Runtime(RuntimeConfig(device="cpu", compile=True))


def small_network() -> Network:
    """One linear layer as the backbone, without a bias; the same weights at every call."""
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5, bias=False))
    return wrap_module(layers, 5, 2, InputSpec(8))
