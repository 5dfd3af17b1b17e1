"""Learning curves count epochs as people do."""

from lauter.auditing.report.curves import build_curves


def test_the_first_epoch_is_number_one() -> None:
    history = [
        {"stage": "distill", "epoch": epoch, "loss": {"mimic": 1.0 - 0.1 * epoch}, "metrics": {}}
        for epoch in range(3)
    ]
    (stage,) = build_curves(history)
    assert "<desc>mimic: 1 at epoch 1, 0.8 at epoch 3</desc>" in str(stage)
