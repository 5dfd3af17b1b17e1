"""ProcessGroup: several processes that take every step together, on one machine or on many.

Collectives of torch.distributed carry what they tell each other: gloo between processors, NCCL between
accelerators. Small things (decisions, settings, states) always go between processors, so that no step waits
for a device.
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from lauter.data.group import Group
from lauter.errors import LauterError, RunError
from lauter.training.checkpoint import put_back

T = TypeVar("T")

BUCKET_BYTES = 32 * 2**20
"""Gradients travel in parcels of about this size: large ones use the line well, several keep it busy."""
AGREE_SECONDS = 0.5
"""About how often processes ask each other whether to stop or to write a checkpoint."""
MOST_STEPS = 1000
"""Steps that pass at most until they ask again."""
_CHUNK = 2**28


class ProcessGroup(Group):
    """This process among several; see :class:`lauter.data.group.Group` for what its methods mean.

    Every method is called by all processes, at the same point of their work. Where another process is gone,
    or silent for longer than the runtime's ``wait_seconds``, they raise RunError.

    Args:
        rank: number of this process.
        size: how many there are.
        device: where its networks run.
    """

    def __init__(self, rank: int, size: int, device: torch.device) -> None:
        self.rank = rank
        self.size = size
        self.device = device
        self._until_agreed = 0
        self._last_agreed = time.monotonic()
        self._stride = 1

    def part(self, count: int) -> slice:
        """The rows of ``count`` that this process computes, one at least."""
        begin, end = self._bounds(count)[self.rank]
        return slice(begin, end) if end > begin else slice(0, min(1, count))

    def _bounds(self, count: int) -> list[tuple[int, int]]:
        """First row and end of every process's part; empty parts are last."""
        short, longer = divmod(count, self.size)
        begins = [rank * short + min(rank, longer) for rank in range(self.size + 1)]
        return list(pairwise(begins))

    def gather(self, values: Sequence[Tensor], count: int) -> list[Tensor]:
        """The parts of all processes, put together."""
        bounds = self._bounds(count)
        own = bounds[self.rank][1] - bounds[self.rank][0]
        gathered: dict[int, Tensor] = {}
        for kind in dict.fromkeys(value.dtype for value in values):  # in one parcel
            places = [place for place, value in enumerate(values) if value.dtype == kind]
            rows = [values[place][:own].reshape(own, values[place][0].numel()) for place in places]
            whole = self._gather_rows(torch.cat(rows, dim=1) if len(rows) > 1 else rows[0], bounds)
            columns = torch.split(whole, [row.shape[1] for row in rows], dim=1)
            for place, column in zip(places, columns, strict=True):
                gathered[place] = column.reshape(count, *values[place].shape[1:])
        return [gathered[place] for place in range(len(values))]

    def _gather_rows(self, rows: Tensor, bounds: list[tuple[int, int]]) -> Tensor:
        if not rows.shape[1]:  # the logits of a headless network
            return rows.new_zeros(bounds[-1][1], 0)
        if rows.dtype == torch.bool:
            return self._gather_rows(rows.to(torch.uint8), bounds).bool()
        with self._in_contact():
            return cast(Tensor, _Gather.apply(rows, self.rank, bounds))

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over all processes; all parcels are under way at once."""
        with self._in_contact():
            sent = []
            for bucket in _fill_buckets(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                sent.append((bucket, flat, dist.all_reduce(flat, async_op=True)))
            for bucket, flat, work in sent:
                work.wait()
                _unpack(flat.div_(self.size), bucket)

    def align_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of process 0."""
        with self._in_contact():
            for bucket in _fill_buckets(tensors):
                flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
                dist.broadcast(flat, 0)
                _unpack(flat, bucket)

    def tell(self, value: T) -> T:
        """The value that process 0 has."""
        content = _encode(value) if self.leads else torch.zeros(0, dtype=torch.uint8)
        length = torch.tensor([len(content)])
        with self._in_contact():
            dist.broadcast(length, 0)
            if not self.leads:
                content = torch.empty(int(length), dtype=torch.uint8)
            for part in torch.split(content, _CHUNK):
                dist.broadcast(part, 0)
        return value if self.leads else cast(T, _decode(content, self.device))

    def lead(self, work: Callable[[], T]) -> T:
        """What process 0 gets by doing the work.

        Raises:
            LauterError: process 0 was refused; the others say so too, as RunError.
        """
        if not self.leads:
            outcome: dict[str, Any] = self.tell({})
            if "error" in outcome:
                raise RunError(f"process 0 stopped: {outcome['error']}")
            return cast(T, outcome["result"])
        try:
            result = work()
        except LauterError as error:
            self.tell({"error": str(error)})
            raise
        self.tell({"result": result})
        return result

    def collect(self, value: T) -> list[T]:
        """What each process has, by rank."""
        content = _encode(value)
        with self._in_contact():
            lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
            dist.all_gather(lengths, torch.tensor([len(content)]))
            longest = max(int(length) for length in lengths)
            padded = torch.zeros(longest, dtype=torch.uint8)
            padded[: len(content)] = content
            parts = [torch.empty_like(padded) for _ in range(self.size)]
            dist.all_gather(parts, padded)
        return [
            cast(T, _decode(part[: int(length)], self.device))
            for part, length in zip(parts, lengths, strict=True)
        ]

    def wait(self) -> None:
        """Go on when every process has come here."""
        with self._in_contact():
            dist.all_reduce(torch.zeros(1))

    def agree(self, *asked: bool, now: bool = False) -> tuple[bool, ...]:
        """Whether any process asks for each of some things; asked about every ``AGREE_SECONDS``, or now."""
        self._until_agreed -= 1
        if self._until_agreed > 0 and not now:
            return (False,) * len(asked)
        passed = max(time.monotonic() - self._last_agreed, 1e-9)
        # The pace of process 0 decides for all: they must count the same steps.
        stride = min(MOST_STEPS, max(1, int(self._stride * AGREE_SECONDS / passed))) if self.leads else 0
        votes = torch.tensor([*map(float, asked), float(stride)])
        with self._in_contact():
            dist.all_reduce(votes, dist.ReduceOp.MAX)
        *answers, stride = votes.tolist()
        self._stride = self._until_agreed = int(stride)
        self._last_agreed = time.monotonic()
        return tuple(bool(answer) for answer in answers)

    @contextmanager
    def same_draws(self) -> Iterator[None]:
        """While it lasts, every process draws what process 0 draws."""
        on_device = self.device.type == "cuda"
        states = [torch.get_rng_state(), *([torch.cuda.get_rng_state(self.device)] if on_device else [])]
        shared = [state.clone() for state in states]
        self.align_(shared)
        self._set_draws(shared)
        try:
            yield
        finally:
            if not self.leads:
                self._set_draws(states)

    def _set_draws(self, states: list[Tensor]) -> None:
        torch.set_rng_state(states[0])
        for state in states[1:]:
            torch.cuda.set_rng_state(state, self.device)

    @contextmanager
    def _in_contact(self) -> Iterator[None]:
        """Turn what torch says of a broken line into what happened and what to do."""
        try:
            yield
        except RuntimeError as error:
            raise RunError(
                f"process {self.rank} lost contact with the other {self.size - 1}: one has ended, and said "
                "why where it ran, or was silent for longer than runtime.wait_seconds. What was finished is "
                "kept: the same command with --resume goes on, with as many processes as you like"
            ) from error


class _Gather(torch.autograd.Function):
    """Parts [b, n] of all processes -> [B, n]; W times the gradient of the own part flows back."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, rank: int, bounds: list[tuple[int, int]]) -> Tensor:
        ctx.rank, ctx.bounds = rank, bounds
        lengths = [end - begin for begin, end in bounds]
        short = lengths[0] - len(rows)  # the first part is the longest
        padded = torch.cat([rows, rows.new_zeros(short, rows.shape[1])]) if short else rows.contiguous()
        parts = [torch.empty_like(padded) for _ in bounds]
        dist.all_gather(parts, padded)
        return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        begin, end = ctx.bounds[ctx.rank]
        return outer[0][begin:end] * len(ctx.bounds), None, None


def _fill_buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one dtype and device, in buckets of about ``BUCKET_BYTES``."""
    filling: dict[tuple[torch.dtype, torch.device], tuple[int, list[Tensor]]] = {}
    for tensor in tensors:
        kind = tensor.dtype, tensor.device
        held, bucket = filling.pop(kind, (0, []))
        bucket.append(tensor)
        if held + tensor.nbytes >= BUCKET_BYTES:
            yield bucket
        else:
            filling[kind] = held + tensor.nbytes, bucket
    yield from (bucket for _, bucket in filling.values())


def _unpack(flat: Tensor, bucket: list[Tensor]) -> None:
    """Write a flat tensor back into the tensors of its bucket."""
    parts = torch.split(flat, [tensor.numel() for tensor in bucket])
    with torch.no_grad():
        for tensor, part in zip(bucket, parts, strict=True):
            tensor.copy_(part.view(tensor.shape))


def _encode(value: Any) -> Tensor:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)


def _decode(content: Tensor, device: torch.device) -> Any:
    buffer = io.BytesIO(content.numpy().tobytes())
    return torch.load(buffer, map_location=put_back(device), weights_only=True)
