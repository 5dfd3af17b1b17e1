"""Friend or foe: the recipe with one part taken out, exchanged or added, beside the recipe as it is."""

import dataclasses
from collections.abc import Callable
from typing import Any

from lauter.bench.records import Record
from lauter.evaluation.intervals import PairedDifference, paired_difference
from lauter.noisy.recipe import NoisyConfig

Change = Callable[[NoisyConfig], NoisyConfig]
METRIC = "balanced_accuracy_last"


def _change(place: str, **values: Any) -> Change:
    """Set fields of the part of the recipe at a place such as ``robust.judge.filter``."""

    def change(config: Any, path: tuple[str, ...]) -> Any:
        if not path:
            return dataclasses.replace(config, **values)
        inner = change(getattr(config, path[0]), path[1:])
        return dataclasses.replace(config, **{path[0]: inner})

    return lambda config: change(config, tuple(place.split(".")))


def _chain(first: Change, second: Change) -> Change:
    return lambda config: second(first(config))


WITHOUT: dict[str, Change] = {
    "no-pretraining": _change("pretrain", method="none"),
    "no-warmup": _change("warmup", kind="none"),
    "no-neighbours": _change("robust.judge", beliefs="ensemble"),
    "no-ensemble": _change("robust.judge", beliefs="neighbours"),
    "no-filter": _change("robust.judge.filter", kind="none"),
    "no-correction": _change("robust.judge.correction", enabled=False),
    "no-prior-correction": _chain(
        _change("warmup", prior_correction=False), _change("robust", prior_correction=False)
    ),
    "no-soft-weights": _change("robust.judge", weighting="hard"),
    "no-weight-average": _change("robust", ema_decay=0.0),
}
"""One part of the default taken out. Without a filter every label counts as right, so none is corrected."""

INSTEAD: dict[str, Change] = {
    "moco": _chain(_change("pretrain", method="moco"), _change("pretrain.optimizer", lr=0.12)),
    "whole-warmup": _change("warmup", kind="whole"),
    "mixture-belief": _change("robust.judge.filter", kind="mixture", signal="belief"),
    "mixture-loss": _change("robust.judge.filter", kind="mixture", signal="loss"),
    "mixture-by-class": _change("robust.judge.filter", kind="mixture", scope="class"),
    "confident-filter": _change("robust.judge.filter", kind="confident"),
    "soft-correction": _change("robust.judge.correction", targets="soft"),
}
"""One part of the default exchanged for another of its kind."""

ADDED: dict[str, Change] = {
    "with-mixup": _change("robust.foes", mixup=1.0),
    "with-two-networks": _change("robust.foes", two_networks=True),
    "with-mixmatch": _change("robust.foes", mixup=4.0, rejected="mixmatch"),
    "with-prior-penalty": _change("robust.foes", prior_penalty=1.0),
    "with-heavy-augmentation": _change("robust.foes", heavy_augmentation=True),
}
"""One part of other methods added to the default."""

VARIANTS: dict[str, Change] = WITHOUT | INSTEAD | ADDED


@dataclasses.dataclass(frozen=True)
class Finding:
    """What a change did, over the seeds that both sides were measured with.

    Attributes:
        variant: one of ``VARIANTS``.
        difference: variant minus default, a share of the images, with its 95% t interval.
    """

    variant: str
    difference: PairedDifference

    @property
    def verdict(self) -> str:
        """What the part is: friend, foe or no evidence.

        A part that was taken out is a friend where that made the result worse; one that was put in, where it
        made it better. An interval that holds 0 is no evidence.
        """
        if self.difference.low <= 0 <= self.difference.high:
            return "no evidence"
        helped = self.difference.mean > 0
        return "friend" if helped != (self.variant in WITHOUT) else "foe"


def judge_parts(records: list[Record], data: str, metric: str = METRIC) -> list[Finding]:
    """Paired differences of every variant to the default.

    Args:
        records: of ``lauter bench friends``; variants with fewer than two common seeds are left out.
        data: on which data set.
        metric: of the records.

    Returns:
        One finding by variant, in the order of ``VARIANTS``.
    """
    values: dict[str, dict[int, float]] = {}
    for record in records:
        if (record.data, record.metric) == (data, metric):
            values.setdefault(record.method, {})[record.seed] = record.value
    default = values.get("fnf", {})
    findings = []
    for variant in VARIANTS:
        seeds = sorted(default.keys() & values.get(variant, {}).keys())
        if len(seeds) < 2:
            continue
        changed = [values[variant][seed] for seed in seeds]
        findings.append(Finding(variant, paired_difference(changed, [default[seed] for seed in seeds])))
    return findings


def draw_chart(findings: list[Finding], width: int = 41) -> str:
    """The findings as lines of text: the interval around 0, its numbers in points, the verdict.

    Args:
        findings: of :func:`judge_parts`.
        width: characters of the drawn axis.

    Returns:
        A title line with the axis's ends, then one line per finding; empty without findings.
    """
    if not findings:
        return ""
    reach = max(max(-found.difference.low, found.difference.high) for found in findings) or 1.0
    names = max(len(found.variant) for found in findings)

    def place(value: float) -> int:
        return round((value / reach + 1) / 2 * (width - 1))

    ends = f"{-100 * reach:+.1f}", f"{100 * reach:+.1f} points"
    lines = [f"{'':{names}}  {ends[0]:<{width // 2}}0{ends[1]:>{width - width // 2 - 1}}"]
    for found in findings:
        difference = found.difference
        axis = [" "] * width
        axis[place(0)] = "|"
        for spot in range(place(difference.low), place(difference.high) + 1):
            axis[spot] = "-"
        axis[place(difference.mean)] = "o"
        numbers = f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"
        lines.append(f"{found.variant:{names}}  {''.join(axis)}  {numbers:22}  {found.verdict}")
    return "\n".join(lines)
