"""The row of a teacher bank: which numbers of a picture are kept, how exactly, and in which bytes."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lauter.data.dataset import Pixels
from lauter.distillation.method import Part, Seen
from lauter.errors import BankError, ConfigError, ModelError

PACKED_HASHES = 32
"""Hashes per feature up to which bits are kept as bits: there they take the room of float32 features."""
HALF_MAX = float(np.finfo(np.float16).max)
_PARTS: frozenset[Part] = frozenset({"features", "logits", "bits"})


@dataclass(frozen=True)
class Layout:
    """What a bank keeps of one picture: a row of bytes, features first, then logits, then bits.

    Attributes:
        feature_size: D.
        feature_bytes: 2 keeps features as float16, 4 as float32, 0 keeps none.
        classes: K; 0 keeps no logits.
        logit_bytes: 2 keeps logits as float16, 4 as float32, 0 keeps none.
        hashes: N; 0 shows no bits.
        packed: whether the bits are kept; else they are made of float32 features at reading.
    """

    feature_size: int
    feature_bytes: int = 0
    classes: int = 0
    logit_bytes: int = 0
    hashes: int = 0
    packed: bool = False

    @property
    def shows(self) -> frozenset[Part]:
        """The parts of :class:`lauter.distillation.method.Seen` that a row gives."""
        kept: dict[Part, int] = {
            "features": self.feature_bytes,
            "logits": self.logit_bytes,
            "bits": self.hashes,
        }
        return frozenset(part for part, size in kept.items() if size)

    @property
    def _ends(self) -> tuple[int, int, int]:
        features = self.feature_size * self.feature_bytes
        logits = features + self.classes * self.logit_bytes
        return features, logits, logits + (-(-self.hashes // 8) if self.packed else 0)

    @property
    def row_bytes(self) -> int:
        """Bytes of a picture, padded to a multiple of 4 so that the numbers of every row are aligned."""
        return -(-self._ends[2] // 4) * 4

    def encode(self, seen: Seen) -> Pixels:
        """Pack what the teacher shows of some pictures.

        Args:
            seen: on the host: float32 features [B, D], and logits [B, K] and bool bits [B, N] where kept.

        Returns:
            uint8 [B, row_bytes].

        Raises:
            BankError: a number is not finite, or too large for float16.
        """
        parts = []
        if seen.features is not None:  # checked even where only their bits are kept
            parts.append(_narrow(seen.features, "features", self.feature_bytes))
        if seen.logits is not None and self.logit_bytes:
            parts.append(_narrow(seen.logits, "logits", self.logit_bytes))
        if seen.bits is not None and self.packed:
            parts.append(np.packbits(seen.bits.numpy(), axis=1))
        kept = np.concatenate(parts, axis=1)
        return np.pad(kept, ((0, 0), (0, self.row_bytes - kept.shape[1])))

    def decode(self, records: Pixels, device: torch.device) -> Seen:
        """Unpack rows to tensors.

        Args:
            records: uint8 [B, row_bytes], contiguous.
            device: where the tensors shall be.

        Returns:
            float32 features and logits, bool bits where they are kept; None for what is not.
        """
        features, logits, bits = self._ends
        stored = torch.from_numpy(records).to(device)
        unpacked = None
        if self.packed:
            flags = np.unpackbits(records[:, logits:bits], axis=1, count=self.hashes)
            unpacked = torch.from_numpy(flags).view(torch.bool).to(device)
        return Seen(
            _widen(stored[:, :features], self.feature_bytes),
            _widen(stored[:, features:logits], self.logit_bytes),
            bits=unpacked,
        )


def _narrow(tensor: Tensor, part: str, size: int) -> Pixels:
    """Numbers [B, D] as bytes [B, size * D]; a size of 0 checks them only."""
    array = tensor.numpy()
    largest = float(np.abs(array).max(initial=0.0))
    if not np.isfinite(largest):
        raise BankError(f"the teacher's {part} are not finite; check its weights, or take precision 32")
    if size == 2 and largest > HALF_MAX:
        raise BankError(
            f"the teacher's {part} reach {largest:,.0f}, and half precision ends at {HALF_MAX:,.0f}; "
            "build a bank with exact=True in another directory"
        )
    if not size:
        return np.zeros((len(array), 0), dtype=np.uint8)
    return np.ascontiguousarray(array, dtype=np.float16 if size == 2 else np.float32).view(np.uint8)


def _widen(stored: Tensor, size: int) -> Tensor | None:
    if not size:
        return None
    return stored.view(torch.float16 if size == 2 else torch.float32).float()


def plan_layout(
    parts: frozenset[Part], feature_size: int, classes: int = 0, hashes: int = 0, *, exact: bool = False
) -> Layout:
    """Decide how a bank keeps what a method reads, in few bytes without losing a bit of the hashes.

    Bits are made from float32 features when the bank is built, so they are those of the live teacher. Up to
    32 hashes per feature they are kept as bits, which take the room of float32 features at most; above, the
    float32 features themselves are smaller and as exact, and are hashed at reading. Bits are never made from
    float16 features, whose rounding flips those next to the border. Features and logits that are read as
    numbers are kept as float16, within 2**-11 of their size, unless ``exact`` is set.

    Args:
        parts: what the method reads: features, logits, bits.
        feature_size: D of the teacher.
        classes: K of the teacher; 0 where it has no classifier.
        hashes: N, where bits are read.
        exact: keep features and logits as float32.

    Returns:
        The layout; its ``row_bytes`` say what a picture costs.

    Raises:
        ConfigError: there is nothing to keep, or bits are asked for without hashes.
        ModelError: a bank cannot keep a part, or the teacher has no logits.
    """
    if unknown := sorted(parts - _PARTS):
        raise ModelError(f"a bank does not keep {' and '.join(unknown)}; take a live teacher")
    if not parts:
        raise ConfigError("a bank keeps features, logits or bits, and none of them was asked for")
    if "logits" in parts and not classes:
        raise ModelError("logits were asked for, and this teacher has no classifier; keep features or bits")
    if ("bits" in parts) != (hashes > 0):
        raise ConfigError("bits need hashes, and hashes are for bits alone: give both or none")
    packed = 0 < hashes <= PACKED_HASHES * feature_size
    hashed_at_reading = hashes > 0 and not packed
    width = 4 if exact else 2
    return Layout(
        feature_size,
        4 if hashed_at_reading else width if "features" in parts else 0,
        classes if "logits" in parts else 0,
        width if "logits" in parts else 0,
        hashes,
        packed,
    )
