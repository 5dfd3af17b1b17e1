"""Published results beside our own, where the protocol is the same: CIFAR-100, the CRD benchmark's pairs."""

import statistics
from collections.abc import Sequence

from lauter.bench.records import Record

PROTOCOL = "cifar100-crd"
PAIRS = (
    "wrn_40_2 -> wrn_16_2",
    "wrn_40_2 -> wrn_40_1",
    "resnet56 -> resnet20",
    "resnet110 -> resnet20",
    "resnet110 -> resnet32",
    "resnet32x4 -> resnet8x4",
    "vgg13 -> vgg8",
    "vgg13 -> MobileNetV2",
    "ResNet50 -> MobileNetV2",
    "ResNet50 -> vgg8",
    "resnet32x4 -> ShuffleV1",
    "resnet32x4 -> ShuffleV2",
    "wrn_40_2 -> ShuffleV1",
)
_ROWS = {
    "teacher": "75.61 75.61 72.34 74.31 74.31 79.42 74.64 74.64 79.34 79.34 79.42 79.42 75.61",
    "none": "73.26 71.98 69.06 69.06 71.14 72.50 70.36 64.60 64.60 70.36 70.50 71.82 70.50",
    "kd": "74.92 73.54 70.66 70.67 73.08 73.33 72.98 67.37 67.35 73.81 74.07 74.45 74.83",
    "fitnet": "73.58 72.24 69.21 68.99 71.06 73.50 71.02 64.14 63.16 70.69 73.59 73.54 73.73",
    "attention": "74.08 72.77 70.55 70.22 72.31 73.44 71.43 59.40 58.58 71.84 71.73 72.73 73.32",
    "sp": "73.83 72.43 69.67 70.04 72.69 72.94 72.68 66.30 68.08 73.34 73.48 74.56 74.52",
    "rkd": "73.35 72.22 69.61 69.25 71.82 71.90 71.48 64.52 64.43 71.50 72.28 73.21 72.21",
    "pkt": "74.54 73.45 70.34 70.25 72.61 73.64 72.88 67.13 66.52 73.01 74.10 74.69 73.89",
    "crd": "75.48 74.14 71.16 71.46 73.48 75.51 73.94 69.73 69.11 74.30 75.11 75.65 76.05",
}
PUBLISHED: dict[str, dict[str, float]] = {
    method: dict(zip(PAIRS, map(float, row.split()), strict=True)) for method, row in _ROWS.items()
}
"""Top-1 accuracy in percent at the last epoch, by method (as ``lauter bench distill`` names it) and pair.

Source: the benchmark of Tian, Krishnan and Isola (2020), arXiv 1910.10699, as its authors' code lists it.
"""


def stand_beside(records: Sequence[Record]) -> str:
    """A table for each pair that was measured under the CRD protocol, published numbers beside ours.

    Args:
        records: of ``lauter bench distill``; those of other protocols are left out, as no published number
            stands beside them.

    Returns:
        Markdown; empty where nothing was measured under the protocol.
    """
    tables = []
    for data in dict.fromkeys(record.data for record in records):
        protocol, _, pair = data.partition(" ")
        if protocol == PROTOCOL:
            ours = [record for record in records if (record.data, record.metric) == (data, "accuracy_last")]
            tables.append(f"{pair}:\n\n{_render_pair(ours, pair)}")
    return "\n\n".join(tables)


def _render_pair(ours: Sequence[Record], pair: str) -> str:
    lines = ["| method | measured, % | seeds | published, % |", "| --- | ---: | ---: | ---: |"]
    for method in dict.fromkeys(record.method for record in ours):
        values = [100 * record.value for record in ours if record.method == method]
        spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
        theirs = PUBLISHED.get(method, {}).get(pair)
        shown = "—" if theirs is None else f"{theirs:.2f}"
        lines.append(f"| {method} | {statistics.fmean(values):.2f}{spread} | {len(values)} | {shown} |")
    return "\n".join(lines)
