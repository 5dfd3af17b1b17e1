"""Corrupted copies of clean data sets, and data sets as Parquet in the Hugging Face layout."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import ArrayLike

from lauter.data.dataset import UNLABELLED, Dataset, Images, Int64s, Pixels, ResidentImages, select_images
from lauter.data.images import encode_png, fit_square, to_image, to_pixels
from lauter.data.sources.truth import TRUTH_FILE, make_metadata
from lauter.errors import DataError
from lauter.files import write_json
from lauter.noise import (
    Confusions,
    NoiseRecipe,
    apply_recipe,
    check_inputs,
    find_candidates,
    find_recipe,
    learn_confusions,
    noise_kinds,
)
from lauter.noise.confusions import SIDES

SHARD_BYTES = 100 * 1024**2
"""Encoded image bytes after which a Parquet shard is full."""
TruthPlace = Literal["file", "columns"]
"""Where the truth is written: into a file of its own, or into columns beside the given labels."""
_GROUP_ROWS = 100  # small row groups: one can be read without its neighbours
_TEXT = {"dtype": "string", "_type": "Value"}


@dataclass(frozen=True, eq=False)
class ReplacedImages:
    """Streamed images, some of them replaced by images of another set.

    Attributes:
        own: [n] images.
        foreign: images of the other set.
        foreign_rows: [n] row in ``foreign`` that stands in an image's place, or -1.
    """

    own: Images
    foreign: Images
    foreign_rows: Int64s

    def __len__(self) -> int:
        return len(self.own)

    @property
    def uniform(self) -> Pixels | None:
        """Streamed images are not resident."""
        return None

    def read(self, index: int) -> Pixels:
        """One image, uint8 [3, H, W]."""
        row = int(self.foreign_rows[index])
        return self.own.read(index) if row < 0 else self.foreign.read(row)


@dataclass(frozen=True, eq=False)
class SmallImages:
    """Images by rows as the small model behind instance-dependent noise takes them.

    Square resident images of 8 to 32 pixels are given as they are; of all others the short side is resized to
    32 and the centre cropped, when they are asked for.

    Attributes:
        images: the images.
    """

    images: Images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: Int64s) -> Pixels:
        """Some images, uint8 [n, 3, S, S]."""
        pixels = self.images.uniform
        if pixels is not None and pixels.shape[2] == pixels.shape[3] and pixels.shape[2] in SIDES:
            return np.asarray(pixels[rows])
        with ThreadPoolExecutor() as executor:
            return np.stack(list(executor.map(self._read, rows.tolist())))

    def _read(self, row: int) -> Pixels:
        return to_pixels(fit_square(to_image(self.images.read(row)), SIDES[-1]))


def corrupt(
    clean: Dataset,
    recipe: NoiseRecipe | str,
    *,
    seed: int = 0,
    head_size: int | None = None,
    open_source: Dataset | None = None,
    human_labels: ArrayLike | None = None,
    clip: bool = False,
) -> Dataset:
    """Corrupt a clean data set by a recipe.

    Ids stay those of the clean set, also where another image takes the place: an id tells nothing of the
    noise, unless it told the class before, as the path of a class folder does; nothing that trains reads ids.
    Foreign images are resized and cropped to the clean set's size where that is resident.

    For instance-dependent noise, confusions are learned here, from all images of the clean set and not only
    from those that the long tail leaves: the classes are then as common as they were, so that images are
    confused for what they show and not for the size of a class, and a small class keeps what is known of it.

    Args:
        clean: labelled images whose labels are taken for the truth.
        recipe: a recipe, or the name of one in ``lauter.noise.RECIPES``.
        seed: see :func:`lauter.noise.apply_recipe`, as for the next two.
        head_size: images of the largest class.
        human_labels: [N] labels that people gave to the images of ``clean``, in their order.
        open_source: labelled images for open noise; classes that ours overlap with are left out.
        clip: let classes with too few images fall short of the long tail.

    Returns:
        The noisy set, with the truth in ``true_labels`` and what was done in ``source["corruption"]``.

    Raises:
        DataError: unlabelled images, labels that are not the truth, or too few images.
        ConfigError: an unknown recipe, or one that needs what was not given.
    """
    recipe = find_recipe(recipe) if isinstance(recipe, str) else recipe
    if clean.true_labels is not None and not np.array_equal(clean.true_labels, clean.labels):
        raise DataError(
            f"{clean.name}: its given labels are not its true labels, so it is noisy already; "
            "open it with the true labels as label_column"
        )
    if unlabelled := int((clean.labels == UNLABELLED).sum()):
        raise DataError(
            f"{clean.name}: {unlabelled} images are unlabelled and cannot be corrupted; leave them out"
        )
    candidates: Int64s | None = None
    left_out: tuple[str, ...] = ()
    if open_source is not None:
        candidates, left_out = find_candidates(
            open_source.labels, open_source.class_names, clean.class_names, recipe.left_out
        )
    check_inputs(recipe, human_labels=human_labels, open_candidates=candidates)
    confusions: Confusions | None = None
    if recipe.closed_kind == "instance":
        confusions = learn_confusions(SmallImages(clean.images), clean.labels, clean.num_classes, seed)
    corruption = apply_recipe(
        recipe,
        clean.labels,
        clean.num_classes,
        seed,
        head_size=head_size,
        human_labels=human_labels,
        class_probabilities=None if confusions is None else confusions.probabilities,
        open_candidates=candidates,
        clip=clip,
    )
    images = select_images(clean.images, corruption.index)
    if open_source is not None:
        images = _replace_images(images, open_source.images, corruption.foreign_index)
    record = {
        "recipe": recipe.to_dict(),
        "seed": seed,
        "head_size": head_size,
        "clip": clip,
        "sha256": corruption.sha256,
        "counts": corruption.count_kinds(),
        "class_sizes": np.bincount(clean.labels[corruption.index], minlength=clean.num_classes).tolist(),
        "confusions": None if confusions is None else confusions.to_dict(),
        "left_out": list(left_out),
        "clean": clean.source,
        "open_source": None if open_source is None else open_source.source,
    }
    return Dataset(
        name=recipe.name,
        images=images,
        labels=corruption.labels,
        class_names=clean.class_names,
        ids=clean.ids[corruption.index],
        true_labels=corruption.true_labels,
        faults=clean.faults,
        source={"corruption": record, "image_size": clean.source.get("image_size")},
    )


def write_parquet(
    dataset: Dataset, directory: str | Path, *, split: str = "train", truth: TruthPlace = "file"
) -> None:
    """Write a data set as one split; see :func:`write_splits`."""
    write_splits({split: dataset}, directory, truth=truth)


def write_splits(splits: Mapping[str, Dataset], directory: str | Path, *, truth: TruthPlace = "file") -> None:
    """Write data sets as Parquet in the Hugging Face layout, all of them or nothing.

    Shards are called ``<split>-00000-of-0000K.parquet``, with columns id, image (PNG, without loss) and
    label. Where the truth is known, it is kept out of them, in ``truth.parquet``: split, id, true_label (-1:
    of no class) and noise (clean, closed or open). ``recipe.json`` says how corrupted splits were made. Read
    back by ``open_dataset(directory, split=...)``, which leaves the truth alone, or for evaluation with
    ``truth_column="true_label"``, which looks it up.

    Args:
        splits: data sets by split.
        directory: new, or empty.
        truth: 'file' as above, or 'columns': true_label and noise become columns of the shards instead.

    Raises:
        DataError: the directory is not empty, a split's name cannot be part of a file name, or splits whose
            truth goes into one file have different classes.
        OSError: from the writing itself; the directory is then what it was before.
    """
    target = Path(directory)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise DataError(f"{target}: is there and not an empty folder; choose another, or remove it")
    for split in splits:
        if not split.replace("_", "").replace(".", "").isalnum():
            raise DataError(f"split {split!r}: expected letters, digits, '_' and '.' only")
    if truth not in get_args(TruthPlace):
        raise DataError(f"truth must be one of {', '.join(get_args(TruthPlace))}, not {truth!r}")
    apart = {name: d for name, d in splits.items() if d.true_labels is not None} if truth == "file" else {}
    if len({dataset.class_names for dataset in apart.values()}) > 1:
        raise DataError(
            f"splits {', '.join(apart)} have different classes, and the truth of all of them goes into one "
            "file; write them to folders of their own, or with truth='columns'"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}-", suffix=".partial", dir=target.parent))
    try:
        for split, dataset in splits.items():
            _write_shards(dataset if truth == "columns" else dataset.without_truth(), temporary, split)
        if apart:
            pq.write_table(pa.concat_tables(map(_make_truth, apart, apart.values())), temporary / TRUTH_FILE)
            _sync(temporary / TRUTH_FILE)
        made = {split: d.source["corruption"] for split, d in splits.items() if "corruption" in d.source}
        if made:
            write_json(temporary / "recipe.json", made)
        temporary.chmod(0o755)
        if target.exists():
            target.rmdir()
        os.replace(temporary, target)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace_images(images: Images, foreign: Images, foreign_rows: Int64s) -> Images:
    if images.uniform is None:
        return ReplacedImages(images, foreign, foreign_rows)
    pixels = images.uniform  # select_images has copied it
    for row in np.flatnonzero(foreign_rows >= 0).tolist():
        picture = foreign.read(int(foreign_rows[row]))
        if picture.shape != pixels.shape[1:]:
            picture = to_pixels(fit_square(to_image(picture), pixels.shape[-1]))
        pixels[row] = picture
    return ResidentImages(pixels)


def _write_shards(dataset: Dataset, folder: Path, split: str) -> None:
    schema = _make_schema(dataset)
    parts: list[Path] = []
    writer: pq.ParquetWriter | None = None
    written = 0
    for rows, encoded in _encode_groups(dataset):
        if writer is None or written >= SHARD_BYTES:
            if writer is not None:
                writer.close()
            parts.append(folder / f"{split}-{len(parts):05d}.partial")
            writer, written = pq.ParquetWriter(parts[-1], schema), 0
        writer.write_table(_make_table(dataset, rows, encoded, schema))
        written += sum(len(image) for image in encoded)
    if writer is None:
        raise DataError(f"{dataset.name}: no images to write as split {split!r}")
    writer.close()
    for number, part in enumerate(parts):
        _sync(part)
        part.rename(folder / f"{split}-{number:05d}-of-{len(parts):05d}.parquet")


def _encode_groups(dataset: Dataset) -> Iterator[tuple[Int64s, list[bytes]]]:
    """Rows and encoded images, by row group; PNG compression leaves the interpreter to other threads."""
    with ThreadPoolExecutor() as executor:
        for start in range(0, len(dataset), _GROUP_ROWS):
            rows = np.arange(start, min(start + _GROUP_ROWS, len(dataset)), dtype=np.int64)
            yield rows, list(executor.map(lambda row: encode_png(dataset.images.read(row)), rows.tolist()))


def _make_schema(dataset: Dataset) -> Any:
    class_label = _describe_classes(dataset)
    image_type = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    fields = [("id", pa.string()), ("image", image_type), ("label", pa.int64())]
    features: dict[str, Any] = {"id": _TEXT, "image": {"_type": "Image"}, "label": class_label}
    if dataset.true_labels is not None:
        fields += [("true_label", pa.int64()), ("noise", pa.string())]
        features |= {"true_label": class_label, "noise": _TEXT}
    return pa.schema(fields, metadata={"huggingface": make_metadata(features)})


def _make_table(dataset: Dataset, rows: Int64s, encoded: list[bytes], schema: Any) -> Any:
    ids = [str(id_) for id_ in dataset.ids[rows]]
    columns: dict[str, Any] = {
        "id": ids,
        "image": [{"bytes": image, "path": None} for image in encoded],
        "label": dataset.labels[rows],
    }
    if dataset.true_labels is not None:
        true = dataset.true_labels[rows]
        columns |= {"true_label": true, "noise": noise_kinds(true, dataset.labels[rows])}
    return pa.table(
        {name: pa.array(values, schema.field(name).type) for name, values in columns.items()}, schema
    )


def _make_truth(split: str, dataset: Dataset) -> Any:
    """The truth of one split, row by row, as a table of its own."""
    true = np.asarray(dataset.true_labels)
    columns = {
        "split": [split] * len(dataset),
        "id": dataset.ids.tolist(),
        "true_label": true,
        "noise": noise_kinds(true, dataset.labels),
    }
    features = dict.fromkeys(columns, _TEXT) | {"true_label": _describe_classes(dataset)}
    return pa.table(columns).replace_schema_metadata({"huggingface": make_metadata(features)})


def _describe_classes(dataset: Dataset) -> dict[str, Any]:
    return {"names": list(dataset.class_names), "_type": "ClassLabel"}


def _sync(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())
