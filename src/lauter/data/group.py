"""Group: the processes that take the steps of a run together. Here the usual group of one.

What is shared is the passes of networks over images: each process computes a part of every global batch, and
what the parts gave is put together (:meth:`Group.gather`) before anything is averaged, compared or drawn. So
every process knows the same of a step, and its loss is that of one process. Several processes are
:class:`lauter.training.process_group.ProcessGroup`; in a group of one every method does nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from torch import Tensor

T = TypeVar("T")


class Group:
    """One process, which computes everything.

    Attributes:
        rank: number of this process, from 0. Process 0 leads: it alone writes and speaks.
        size: W, how many processes there are.
    """

    rank = 0
    size = 1

    @property
    def leads(self) -> bool:
        """Whether this process writes files, logs and speaks."""
        return self.rank == 0

    def part(self, count: int) -> slice:
        """Which of ``count`` rows this process computes.

        The parts of all processes are contiguous, in the order of their ranks, and differ by one row at most.
        No part is empty, since networks stumble over batches of nothing: of fewer rows than processes, the
        last ones compute the first row too, which :meth:`gather` leaves out.
        """
        return slice(0, count)

    def gather(self, values: Sequence[Tensor], count: int) -> list[Tensor]:
        r"""Put the parts of all processes together; gradients flow back into the own part.

        Every process computes the same loss of the whole, and gradients of weights are *averaged* over
        processes (:meth:`average_`). So the gradient that flows back into a part is multiplied by W:

        .. math:: \frac{1}{W} \sum_{r=1}^{W} \frac{\partial}{\partial w}
                  \Big( W \sum_{b \in \text{part } r} \frac{\partial \ell}{\partial v_b} v_b(w) \Big)
                  = \frac{\partial \ell}{\partial w}

        is right for weights before the gathering, and for those behind it, whose gradient is the same in
        every process, the average changes nothing.

        Args:
            values: each [b, ...] for the rows of :meth:`part`.
            count: B, rows of the whole.

        Returns:
            Each [B, ...], the same in every process.
        """
        return list(values)

    def average_(self, tensors: Iterable[Tensor]) -> None:
        """Replace tensors by their mean over all processes, in place; each process gives the same shapes."""

    def align_(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite tensors with those of process 0, in place."""

    def tell(self, value: T) -> T:
        """The value that process 0 has: tensors, numbers, texts, lists and dicts of them."""
        return value

    def lead(self, work: Callable[[], T]) -> T:
        """What process 0 gets by doing the work, which it does alone while the others wait."""
        return work()

    def collect(self, value: T) -> list[T]:
        """What each process has, by rank."""
        return [value]

    def wait(self) -> None:
        """Go on when every process has come here."""

    def agree(self, *asked: bool, now: bool = False) -> tuple[bool, ...]:
        """Whether any process asks for each of some things; the same answer in every process.

        Args:
            asked: what this one asks for.
            now: several processes take the time to listen to each other about once a second, and answer no in
                between; a request is not lost when it is made again. True asks them now.
        """
        return asked

    @contextmanager
    def same_draws(self) -> Iterator[None]:
        """While it lasts, every process draws from torch's generators what process 0 draws.

        Networks draw (dropout) on every process for itself; what is drawn for a whole batch is drawn here.
        """
        yield


ALONE = Group()
"""The group of one process."""
