"""How fast a finished student answers: PyTorch and ONNX Runtime, its head folded and not."""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lauter.artefacts import export_onnx
from lauter.bench.records import Record
from lauter.bench.speed_course import SUITE, SpeedConfig
from lauter.distillation.heads import fit_student_head
from lauter.models import Network, create_network, fold_head
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.setup import draw_from

BATCHES = (1, 64)
CLASSES = 10


def measure_export(work: Path, runtime: RuntimeConfig, config: SpeedConfig) -> list[Record]:
    """Time a student with an embedded head in float32, call by call, the ways in turn.

    Both run on the processor, with as many threads as torch has.

    Args:
        work: where the ONNX files are written.
        runtime: threads.
        config: student, repeats, calls.

    Returns:
        Milliseconds of a call (the median of all) with 1 and with 64 images, and images per second; and for
        each batch the ratio folded_over_embedded of the times in PyTorch.

    Raises:
        ConfigError: the export extra is not installed.
    """
    Runtime(runtime)  # sets the threads
    with draw_from(0, "speed export"):
        teacher, student = (create_network(name, CLASSES) for name in config.pair)
        fit_student_head(student, teacher, "embedded")
    student = student.eval()
    networks = {"embedded head": student, "folded head": fold_head(student).eval()}
    side = student.input_spec.size
    pixels = torch.randint(0, 256, (max(BATCHES), 3, side, side), dtype=torch.uint8).float()
    ways: dict[str, Callable[[Tensor], object]] = {}
    for name, network in networks.items():
        path = work / f"{name.replace(' ', '-')}.onnx"
        export_onnx(network, path, pixels)
        ways[f"PyTorch, {name}"] = _answer_in_torch(network)
        ways[f"ONNX Runtime, {name}"] = _answer_in_onnx(path)
    data = f"{config.pair[1]}, {side} x {side}, float32"
    records = []
    for batch in BATCHES:
        seconds = _time_calls(ways, pixels[:batch], config.repeats * config.calls)
        for name, middle in seconds.items():
            values = {f"milliseconds_{batch}": 1e3 * middle, f"images_per_second_{batch}": batch / middle}
            records += [Record(SUITE, data, name, 0, metric, value) for metric, value in values.items()]
        folded, embedded = (seconds[f"PyTorch, {name} head"] for name in ("folded", "embedded"))
        ratio = Record(SUITE, data, f"folded_over_embedded_{batch}", 0, "ratio", folded / embedded)
        records.append(ratio)
    return records


def _answer_in_torch(network: Network) -> Callable[[Tensor], object]:
    @torch.inference_mode()
    def answer(pixels: Tensor) -> object:
        return network(pixels).logits

    return answer


def _answer_in_onnx(path: Path) -> Callable[[Tensor], object]:
    import onnxruntime  # here: the extra may be missing, and export_onnx has said so by now

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda pixels: session.run(None, {"pixels": pixels.numpy()})


def _time_calls(ways: dict[str, Callable[[Tensor], object]], pixels: Tensor, calls: int) -> dict[str, float]:
    """Median seconds of a call by way, after a few to warm up."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for call in range(-3, calls):
        for name, answer in ways.items():
            began = time.perf_counter()
            answer(pixels)
            if call >= 0:
                seconds[name].append(time.perf_counter() - began)
    return {name: float(np.median(values)) for name, values in seconds.items()}
