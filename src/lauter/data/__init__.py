"""Labelled images: Dataset and where it comes from."""

from lauter.data.corrupting import corrupt, write_parquet, write_splits
from lauter.data.dataset import OPEN, UNLABELLED, Dataset, ImageFault, Images, ResidentImages, select_images
from lauter.data.images import ImageError, decode_image
from lauter.data.noise_picture import draw_noise, write_noise_picture
from lauter.data.opening import available_splits, open_dataset
from lauter.data.splitting import hold_out, take_stratified

__all__ = [
    "OPEN",
    "UNLABELLED",
    "Dataset",
    "ImageError",
    "ImageFault",
    "Images",
    "ResidentImages",
    "available_splits",
    "corrupt",
    "decode_image",
    "draw_noise",
    "hold_out",
    "open_dataset",
    "select_images",
    "take_stratified",
    "write_noise_picture",
    "write_parquet",
    "write_splits",
]
