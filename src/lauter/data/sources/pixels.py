"""Pixels without any encoding, offered like encoded images."""

from dataclasses import dataclass

from lauter.data.dataset import Pixels


@dataclass(frozen=True, eq=False)
class PixelCells:
    """Images of one size in one array, as the bytes of PPM files: so they are loaded like all others.

    PPM is a header and the pixels as they are, so nothing is lost and little time is spent.

    Attributes:
        pixels: uint8 [N, 3, H, W].
    """

    pixels: Pixels

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, row: int) -> bytes:
        """One image as a PPM file."""
        image: Pixels = self.pixels[row].transpose(1, 2, 0)
        header: bytes = b"P6 %d %d 255\n" % (image.shape[1], image.shape[0])
        return header + image.tobytes()
