"""``lauter predict``: class and probability for images without labels."""

from collections.abc import Sequence

from lauter.commands import flags
from lauter.data.bare import open_images
from lauter.errors import ConfigError
from lauter.export import load
from lauter.files import atomic_path


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "predict", "A table of class and probability, as CSV or Parquet.", "MODEL IMAGES [--out FILE]"
    )
    parser.add_argument("model", help="a .safetensors file or a run directory")
    parser.add_argument("images", help="an image, or a folder that is searched for images")
    parser.add_argument(
        "--out", type=str | None, help="a .csv or .parquet file; printed as CSV where not given"
    )
    arguments = flags.parse(parser, argv)
    model = load(arguments.model)
    images, ids, faults = open_images(arguments.images, model.network.input_spec.size)
    table = model.predict_images(images, ids)
    for fault in faults:
        print(f"left out    {fault.id}: {fault.fault} ({fault.detail})")
    if arguments.out is None:
        print(table.to_csv(index=False), end="")
        return 0
    out = flags.require_free(arguments.out)
    if out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out must end in .csv or .parquet, not {out.name!r}")
    with atomic_path(out) as temporary:
        if out.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            table.to_parquet(temporary, index=False)
    print(f"{out}: {len(table):,} images")
    return 0
