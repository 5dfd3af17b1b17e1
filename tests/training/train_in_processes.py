"""Trains the same by one process and by several that take every step together; run by test_process_group.py.

The processes are forked after the imports, so that many of them cost little time. Networks are float64 and
their batch normalisation is frozen: what is left between one process and several is the order of sums.

Then the command line, as people use it: torchrun starts a run, one of its processes is killed, others go on.

Usage: train_in_processes.py DIRECTORY. Leaves SIZE.RANK.pt there for every process of every group,
killed.json, and the directories of the runs that were begun on the command line.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from lauter.__main__ import main as lauter
from lauter.data import Dataset
from lauter.data.dataset import ResidentImages
from lauter.distillation import bank_building
from lauter.distillation.heads import fit_student_head
from lauter.distillation.mimic import MimicConfig
from lauter.distillation.recipe import distill_into
from lauter.distillation.rivals import build_rival
from lauter.distillation.source import SourceConfig
from lauter.errors import ConfigError, RunError
from lauter.models import InputSpec, Network, wrap_module
from lauter.noisy.foes import FoesConfig
from lauter.noisy.judge import JudgeConfig
from lauter.noisy.pretrain import PretrainConfig
from lauter.noisy.recipe import NoisyConfig, pretrain, train_robustly
from lauter.noisy.rivals import train_rival
from lauter.noisy.rivals.rival import Ground
from lauter.noisy.robust import RobustConfig
from lauter.noisy.warmup import WarmupConfig, WholeConfig
from lauter.training import process_group, sharding
from lauter.training.checkpoint import Checkpoints
from lauter.training.loop import Interrupted, Loop
from lauter.training.predict import predict
from lauter.training.progress import Progress
from lauter.training.runtime import Runtime, RuntimeConfig
from lauter.training.schedule import OptimizerConfig
from lauter.training.setup import Setup
from lauter.training.supervised import SupervisedConfig, SupervisedStage

LENGTHS = "--pretrain.epochs 1 --robust.epochs 5 --warmup.kind none"
BATCHES = "--pretrain.batch-size 32 --robust.batch-size 32"
RUNTIME = "--runtime.device cpu --runtime.precision 32 --runtime.workers 0 --runtime.threads 1"
COMMAND = f"train digits --size 100 --teacher resnet8 {LENGTHS} {BATCHES} {RUNTIME}".split()
IMAGES, SIDE, CLASSES = 26, 8, 3
SIZES = (1, 2, 3)
SGD = OptimizerConfig(lr=0.05)
Found = dict[str, Any]


class FrozenNorm(nn.BatchNorm2d):
    """Batch normalisation by its running statistics, whatever mode it is set to."""

    def train(self, mode: bool = True) -> "FrozenNorm":
        super().train(False)
        return self


class Telling(Progress):
    """Keeps what is said of epochs; may do something at a step."""

    def __init__(self, each_step: Callable[[int], None] = lambda step: None) -> None:
        super().__init__()
        self.losses: list[dict[str, float]] = []
        self.metrics: list[dict[str, float]] = []
        self.each_step, self.steps = each_step, 0

    def step(self, *arguments: Any, **options: Any) -> None:
        self.steps += 1
        self.each_step(self.steps)

    def epoch(self, record: dict[str, Any], epochs: int) -> None:
        self.losses.append({name: float(value) for name, value in record["loss"].items()})
        self.metrics.append({name: float(value) for name, value in record["metrics"].items()})


def make_network(seed: int, width: int = 6, norm: type[nn.BatchNorm2d] = FrozenNorm) -> Network:
    """A small network in float64; statistics that are not 0 and 1."""
    torch.manual_seed(seed)
    body = nn.Sequential(
        nn.Conv2d(3, width, 3, stride=2, bias=False),
        norm(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )
    body[1].running_mean.normal_()
    body[1].running_var.uniform_(0.5, 2)
    return wrap_module(body, width, CLASSES, InputSpec(SIDE)).double()


@contextmanager
def in_float64() -> Iterator[None]:
    """New modules are float64: projectors, queues, the head of a second network."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def make_data(count: int = IMAGES) -> Dataset:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 3, SIDE, SIDE), dtype=np.uint8)
    labels = rng.integers(0, CLASSES, count)
    labels[:2] = -1
    ids = np.array([f"{row}.png" for row in range(count)])
    return Dataset("noise", ResidentImages(pixels), labels, ("r", "g", "b"), ids)


def make_setup(folder: Path | None = None, count: int = IMAGES, progress: Progress | None = None) -> Setup:
    runtime = Runtime(RuntimeConfig(device="cpu", precision="32", threads=1, workers=0, wait_seconds=60))
    loop = Loop(runtime, Checkpoints(folder), progress or Telling(), seed=7, checkpoint_seconds=0.0)
    rows = np.arange(count)
    held = rows % 5 == 4
    return Setup(make_data(count), rows[~held], rows[held], None, loop, SIDE, "objects")


def show(setup: Setup, *networks: Network, **more: Any) -> Found:
    """What a training left."""
    told = setup.loop.progress
    weights = [dict(network.state_dict()) for network in networks]
    return {"losses": told.losses, "metrics": told.metrics, "weights": weights, **more}


def supervise(setup: Setup, batch_size: int = 8, network: Network | None = None, epochs: int = 2) -> Found:
    network = network or make_network(1)
    config = SupervisedConfig(epochs, batch_size, OptimizerConfig(lr=0.05, clip=0.5), ema_decay=0.9)
    batches = setup.batches("supervised", setup.train, batch_size)
    stage = SupervisedStage("supervised", network, setup.data.labels, batches, config, setup.track())
    setup.loop.run_stage(stage)
    images = setup.loop.costs["supervised"].images
    return show(setup, network, stage.evaluated, scores=stage.tracker.scores, images=images)


def contrast(method: str) -> Found:
    setup, network = make_setup(), make_network(1)
    settings = {"monitor_every": 1, "projection_size": 4, "optimizer": SGD, "queue": 9}
    with in_float64():
        pretrain(setup, network, PretrainConfig(method, 2, 8, **settings))  # type: ignore[arg-type]
    return show(setup, network)


def judge(foes: FoesConfig) -> Found:
    setup, network = make_setup(), make_network(1)
    config = NoisyConfig(
        PretrainConfig("none"),
        WarmupConfig(kind="whole", whole=WholeConfig(1, 8, SGD)),
        RobustConfig(3, 8, SGD, judge=JudgeConfig(neighbours=3, refresh_neighbours=2), foes=foes),
    )
    with in_float64():
        stage = train_robustly(setup, network, config)
    known = stage.judge
    return show(
        setup,
        network,
        stage.evaluated,
        beliefs=torch.from_numpy(known.beliefs),
        targets=torch.from_numpy(known.choose_targets()),
        trust=known.weights,
    )


def mimic(folder: Path | None, kind: str, rival: str = "") -> Found:
    setup, teacher, student = make_setup(folder), make_network(2, 8), make_network(1)
    source = SourceConfig(kind, views=2)  # type: ignore[arg-type]
    config = MimicConfig(epochs=2, batch_size=8, hashes=32, optimizer=SGD, source=source)
    fit_student_head(student, teacher, "own")
    student.double()
    targets = torch.from_numpy(setup.data.labels)
    parts = frozenset({"features"})
    method = (lambda lesson: build_rival(rival, lesson), parts) if rival else None
    stage = distill_into(student, teacher, setup, targets, setup.train, config, rival=method)  # type: ignore[arg-type]
    return show(setup, stage.student)


def compete(name: str) -> Found:
    setup = make_setup()
    ground = Ground(name, setup, lambda role: make_network(len(role)), SupervisedConfig(2, 8, SGD))
    try:
        with in_float64():
            stage = train_rival(name, ground)
    except ConfigError as error:
        return {"refused": str(error)}
    return show(setup, stage.evaluated)


def interrupt(folder: Path) -> Found:
    """The last process is told to stop at the second step; all stop there, and go on."""
    rank = int(os.environ.get("RANK", "0"))
    last = rank == int(os.environ.get("WORLD_SIZE", "1")) - 1

    def stop(step: int) -> None:
        if last and step == 2:
            os.kill(os.getpid(), signal.SIGTERM if rank else signal.SIGINT)

    try:
        supervise(make_setup(folder, progress=Telling(stop)))
    except Interrupted:
        setup = make_setup(folder)
        setup.loop.group.wait()
        position = torch.load(folder / "supervised.pt", weights_only=True)["position"]
        return {"position": list(position)}
    return {}


def normalise() -> Found:
    """Live batch normalisation: every process by its part of a batch."""
    network = make_network(1, norm=nn.BatchNorm2d)
    found = supervise(make_setup(), network=network, epochs=1)
    group = make_setup().loop.group
    everywhere = group.collect([value.tolist() for value in network.buffers()])
    return {**found, "alike": all(values == everywhere[0] for values in everywhere)}


def split() -> Found:
    """A teacher whose weights are split, and what it said of all images before and after."""
    setup, teacher = make_setup(), make_network(2, 8).requires_grad_(False).eval()
    images, runtime = setup.data.images, setup.loop.runtime
    runtime.place(teacher)
    before = predict(teacher, images, runtime, batch_size=5)
    whole = sum(weight.numel() for weight in teacher.parameters())
    sharding.SMALLEST_BLOCK = 1
    sharding.split_network(teacher)
    after = predict(teacher, images, runtime, batch_size=5)
    kept = sum(weight.to_local().numel() for weight in teacher.parameters())  # type: ignore[attr-defined]
    return {"before": before.features, "after": after.features, "whole": whole, "kept": kept}


def talk() -> Found:
    """What processes can tell each other."""
    group = make_setup().loop.group
    values = torch.arange(14.0).reshape(7, 2)
    part = values[group.part(7)].clone().requires_grad_()
    flags = values[group.part(7), 0] > 3
    gathered, mask, nothing = group.gather((3 * part, flags, part[:, :0]), 7)
    (gathered * values).sum().backward()
    mean = torch.full((3,), float(group.rank))
    group.average_([mean])
    torch.manual_seed(group.rank)
    with group.same_draws():
        drawn = torch.rand(3)
    try:
        group.lead(lambda: refuse())
    except (ConfigError, RunError) as error:
        refused = f"{type(error).__name__}: {error}"
    return {
        "gathered": gathered.detach(),
        "mask": mask,
        "nothing": list(nothing.shape),
        "gradient": part.grad,
        "part": part.detach(),
        "mean": mean,
        "drawn": drawn,
        "after": torch.rand(1),
        "refused": refused,
        "told": group.tell({"rank": group.rank, "tensor": mean}),
        "led": group.lead(lambda: group.rank),
        "collected": group.collect(["x" * group.rank]),
        "agreed": list(group.agree(group.rank == group.size - 1, False, now=True)),
    }


def refuse() -> None:
    raise ConfigError("no")


def compare(folder: Path) -> dict[str, Found]:
    """Everything that one process and several must do alike."""
    bank_building.SHARD_ROWS = 9  # three shards to a view
    process_group.AGREE_SECONDS = 0.0  # every step
    foes = FoesConfig(mixup=4.0, rejected="mixmatch", two_networks=True, prior_penalty=1.0)
    return {
        "talk": talk(),
        "supervised": supervise(make_setup()),
        "fewer images than processes": supervise(make_setup(count=7), batch_size=2),
        "simclr": contrast("simclr"),
        "moco": contrast("moco"),
        "robust": judge(FoesConfig()),
        "foes": judge(foes),
        "live": mimic(None, "live"),
        "bank": mimic(folder / "checkpoints", "bank"),
        "rkd": mimic(None, "live", "rkd"),
        "mixup": compete("mixup"),
        "coteaching": compete("coteaching"),
        "dividemix": compete("dividemix") if "WORLD_SIZE" in os.environ else {},
        "norms": normalise(),
        "split": split() if "WORLD_SIZE" in os.environ else {},
        "interrupted": interrupt(folder / "interrupted"),
    }


def start(work: Callable[[], None], rank: int, size: int, port: int) -> int:
    """Fork a process with a launcher's environment; gives its id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        if size > 1:
            place = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
            os.environ |= {name: str(value) for name, value in place.items()}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def run(size: int, work: Callable[[int], None]) -> None:
    """Run the work in so many processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = [start(lambda rank=rank: work(rank), rank, size, port) for rank in range(size)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
    if any(codes):
        raise SystemExit(f"of {size} processes some failed: {codes}")


def command(folder: Path, *flags: str) -> None:
    """Run the command line in this process, silently."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        code = lauter([*COMMAND, "--out", str(folder), *flags])
    if code:
        raise SystemExit(code)


def find_process(launcher: int, rank: int) -> int:
    """The process of a rank among the children of a launcher."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and f"RANK={rank}" in (entry / "environ").read_text().split("\0"):
                return int(entry.name)
        except (OSError, ValueError):  # gone meanwhile
            continue
    raise SystemExit(f"no process of rank {rank}")


def kill_one(folder: Path) -> Found:
    """Let torchrun start a run, and kill one of its two processes in the midst of a stage."""
    launch = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "lauter",
    ]
    launcher = subprocess.Popen(
        [*launch, *COMMAND, "--out", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = folder / "metrics.jsonl"
    while launcher.poll() is None and not (log.exists() and '"robust"' in log.read_text()):
        time.sleep(0.01)
    if launcher.poll() is None:
        os.kill(find_process(launcher.pid, 1), signal.SIGKILL)
    _, said = launcher.communicate(timeout=300)
    return {"code": launcher.returncode, "said": said, "finished": (folder / "metrics.json").exists()}


def main(top: Path) -> None:
    (top / "killed.json").write_text(json.dumps(kill_one(top / "killed")))
    for size in (1, 2):
        shutil.copytree(top / "killed", top / f"killed-{size}")
        run(size, lambda rank, size=size: command(top / f"killed-{size}", "--resume", "true"))
    run(2, lambda rank: command(top / "whole"))
    for size in SIZES:
        run(size, lambda rank, size=size: torch.save(compare(top / str(size)), top / f"{size}.{rank}.pt"))
    for size in SIZES:  # what two processes began and left, any number of them ends
        for name in (top / "2" / "interrupted").glob("*.pt"):
            (top / f"resumed-{size}").mkdir()
            (top / f"resumed-{size}" / name.name).write_bytes(name.read_bytes())

        def resume(rank: int, size: int = size) -> None:
            found = supervise(make_setup(top / f"resumed-{size}"))
            torch.save({"resumed": found}, top / f"resumed-{size}.{rank}.pt")

        run(size, resume)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
