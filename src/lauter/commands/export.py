"""``lauter export``: write a saved model as ONNX."""

from collections.abc import Sequence

from lauter.artefacts import export_onnx, load
from lauter.commands import flags
from lauter.models import count_flops, count_parameters
from lauter.results import example_pixels


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "export",
        "Write a saved model as ONNX and check it against PyTorch.",
        "MODEL --images DATA --out FILE",
    )
    parser.add_argument("model", help="a .safetensors file or a run directory")
    parser.add_argument(
        "--images",
        type=str,
        required=True,
        help="real images to check the export on: a folder, an image or a data set",
    )
    parser.add_argument("--out", default="student.onnx", help="the file to write")
    arguments = flags.parse(parser, argv)
    out = flags.require_free(arguments.out)
    model = load(arguments.model)
    size = model.network.input_spec.size
    images, _, faults = flags.open_unlabelled(arguments.images, size)
    flags.tell_faults(faults)
    pixels = example_pixels(images, size)
    flops = count_flops(model.network)
    difference = export_onnx(model.network, out, pixels)
    print(f"{out}: {count_parameters(model.network):,} parameters, {flops:,} FLOPs an image at {size} px")
    print(f"largest difference to PyTorch on {len(pixels)} real images: {difference:.1e}")
    return 0
