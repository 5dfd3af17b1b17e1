"""``lauter predict``: class and probability for images, labelled or not."""

from collections.abc import Sequence

from lauter.artefacts import load
from lauter.commands import flags
from lauter.errors import ConfigError
from lauter.files import atomic_path


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "predict", "A table of class and probability, as CSV or Parquet.", "MODEL IMAGES [--out FILE]"
    )
    parser.add_argument("model", help="a .safetensors file or a run directory")
    parser.add_argument("images", help="an image, a folder that is searched for images, or a data set")
    parser.add_argument(
        "--out", type=str | None, help="a .csv or .parquet file; printed as CSV where not given"
    )
    arguments = flags.parse(parser, argv)
    out = None if arguments.out is None else flags.require_free(arguments.out)
    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out must end in .csv or .parquet, not {out.name!r}")
    model = load(arguments.model)
    images, ids, faults = flags.open_unlabelled(arguments.images, model.network.input_spec.size)
    table = model.predict_images(images, ids)
    flags.tell_faults(faults)
    if out is None:
        print(table.to_csv(index=False), end="")
        return 0
    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    print(f"{out}: {len(images):,} images")
    return 0
