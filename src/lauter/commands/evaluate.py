"""``lauter evaluate``: score a saved model on labelled images."""

import json
from collections.abc import Sequence

from lauter.artefacts import load
from lauter.commands import flags
from lauter.data import open_dataset
from lauter.files import write_json
from lauter.scoring import evaluate


def main(argv: Sequence[str]) -> int:
    """Run the verb."""
    parser = flags.make_parser(
        "evaluate", "Score a saved model on labelled images.", "MODEL DATA [--split test] [flags]"
    )
    parser.add_argument("model", help="a .safetensors file or a run directory")
    flags.add_data_flags(parser, test=False)
    parser.add_argument("--out", type=str | None, help="write the scores to this JSON file too")
    arguments = flags.parse(parser, argv)
    out = None if arguments.out is None else flags.require_free(arguments.out)
    model = load(arguments.model)
    data = open_dataset(
        arguments.data,
        split=arguments.split,
        label_column=arguments.label_column,
        truth_column=arguments.truth_column,
        image_column=arguments.image_column,
        id_column=arguments.id_column,
        size=arguments.size,
        class_names=model.class_names,
        min_per_class=0,
        reduced_decoding=arguments.reduced_decoding,
    )
    flags.tell_faults(data.faults)
    scores = evaluate(model, data)
    if out is not None:
        write_json(out, scores)
    print(json.dumps(scores, indent=2))
    return 0
