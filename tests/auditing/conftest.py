import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.datasets import load_digits

from lauter.auditing.judgement import Advice, Cuts, Judgement, ReviewPlan
from lauter.auditing.report import AuditContent, ReportContent
from lauter.data.dataset import ImageFault
from lauter.evaluation.intervals import Interval

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


def interval(value, half=0.012):
    return {"value": value, "low": value - half, "high": min(1.0, value + half)}


def make_scores(value, **more):
    metrics = {
        "balanced_accuracy": interval(value),
        "macro_f1": interval(value - 0.008),
        "worst_class_recall": interval(value - 0.11, 0.03),
        "accuracy": interval(value + 0.004),
        "open_auroc": interval(value - 0.04, 0.015),
    }
    last = {name: interval(entry["value"] - 0.006) for name, entry in metrics.items()}
    return {"selected": metrics, "last": last, "selected_epoch": 31, "oracle_gap": 0.0042, **more}


def make_history(rng):
    history = []
    for stage, epochs in (("pretrain", 40), ("warmup", 8), ("robust", 36), ("distill", 40), ("baseline", 36)):
        for epoch in range(epochs):
            done = (epoch + 1) / epochs
            wobble = rng.normal(0, 0.01)
            entry = {"stage": stage, "epoch": epoch, "images_per_second": 900.0, "seconds": 2.1}
            if stage == "pretrain":
                entry |= {
                    "loss": {"moco": 6.3 - 2.1 * done**0.5 + wobble},
                    "metrics": {"knn_agreement": 0.3 + 0.3 * done},
                }
            elif stage == "distill":
                angle = 62 * (1 - done) ** 1.5 + 14 + 20 * wobble
                entry |= {
                    "loss": {
                        "lsh": 0.69 - 0.4 * done**0.6 + wobble,
                        "l2": 0.5 * (1 - done) + 0.1,
                        "ce": 1.9 - 1.2 * done,
                    },
                    "metrics": {
                        "agreement_with_given": 0.4 + 0.25 * done + wobble,
                        "angle_p10": 0.6 * angle,
                        "angle_p50": angle,
                        "angle_p90": 1.6 * angle,
                        "norm_ratio_p10": 0.55 + 0.3 * done,
                        "norm_ratio_p50": 0.7 + 0.28 * done,
                        "norm_ratio_p90": 0.9 + 0.35 * done,
                    },
                }
            else:
                entry |= {
                    "loss": {"cross_entropy": 2.3 - 1.3 * done + wobble},
                    "metrics": {
                        "agreement_with_given": 0.35 + 0.3 * done**0.7 + wobble,
                        "kept": 0.9 - 0.25 * done,
                    },
                }
                if stage == "robust":
                    entry["metrics"] |= {
                        "images_relabelled": float(round(180 * done)),
                        "estimated_noise_rate": 0.31 + wobble,
                    }
            history.append(entry)
    return history


@pytest.fixture(scope="session")
def content():
    """A report as a run on noisy digits would make it, with every section filled."""
    rng = np.random.default_rng(0)
    digits = load_digits()
    n, truth = len(digits.target), digits.target
    is_open, is_wrong = rng.random(n) < 0.08, rng.random(n) < np.where(truth < 5, 0.15, 0.3)
    given = np.where(is_wrong, (truth + rng.integers(1, 10, n)) % 10, truth)
    wrong = is_open | is_wrong
    right = np.clip(rng.beta(1.2, 9, n) * wrong + rng.beta(12, 1.3, n) * ~wrong, 0.001, 0.999)
    p_open = np.clip(rng.beta(7, 3, n) * is_open + rng.beta(1, 12, n) * ~is_open, 0, 1)
    verdict = np.select(
        [(right > 0.35) & (right < 0.6), right >= 0.6, p_open > 0.5], ["ask", "keep", "drop"], "relabel"
    )
    ids = np.array([f"train/{NAMES[label]}/scan-{row:05d}.png" for row, label in enumerate(given)])
    names = np.array(NAMES, dtype=object)
    table = pd.DataFrame(
        {
            "id": ids,
            "given": names[given],
            "verdict": verdict,
            "suggested": np.where(verdict == "relabel", names[truth], names[given]),
            "p_given_right": right,
            "p_open": p_open,
        }
    )
    table.loc[:30, ["given", "p_given_right"]] = [None, np.nan]
    table.loc[:30, "verdict"] = "unlabelled"
    matrix = np.zeros((10, 10))
    np.add.at(matrix, (truth, given), 1)
    tint = rng.uniform(0.5, 1, (n, 3, 1, 1))

    def picture(row):
        grey = np.kron(digits.images[row] / 16, np.ones((4, 4)))
        return (255 * (1 - grey[None] * tint[row])).astype(np.uint8)

    counts = {
        name: int((table["verdict"] == name).sum())
        for name in ("keep", "relabel", "drop", "ask", "unlabelled")
    }
    metrics = {
        "student": make_scores(0.921, parameters=78_042, flops=12.7e6),
        "teacher": make_scores(0.934, parameters=272_474, flops=41.2e6),
        "baseline": make_scores(0.843),
        "labels": {
            "counts": counts,
            "noise_rate": interval(0.294),
            "noise_rate_by_class": {
                name: float((wrong & (given == k)).sum() / (given == k).sum()) for k, name in enumerate(NAMES)
            },
            "transition_matrix": (matrix / matrix.sum(1, keepdims=True)).tolist(),
            "auroc": 0.968,
            "average_precision": 0.941,
            "precision": 0.902,
            "recall": 0.887,
            "f1": 0.894,
        },
        "cost": {
            "seconds": 1312.4,
            "images_processed": 411_000,
            "flops": 2.94e13,
            "stages": {
                "pretrain": {
                    "seconds": 412.0,
                    "images": 143_760,
                    "flops": 1.2e13,
                    "images_per_second": 349.0,
                },
                "warmup": {"seconds": 9.5, "images": 14_376, "flops": 4e10, "images_per_second": 1513.0},
                "robust": {"seconds": 610.2, "images": 64_692, "flops": 9.1e12, "images_per_second": 106.0},
                "distill": {"seconds": 280.7, "images": 71_880, "flops": 8.2e12, "images_per_second": 256.0},
            },
        },
    }
    faults = (
        ImageFault("train/six/scan-01901.png", "unreadable", "cannot identify image file", dropped=True),
        ImageFault(
            "train/two/scan-01844.png",
            "truncated",
            "image file is truncated (12 bytes not processed)",
            dropped=False,
        ),
        ImageFault(
            "train/two/scan-01845.png",
            "truncated",
            "image file is truncated (3 bytes not processed)",
            dropped=False,
        ),
    )
    config = {
        "data": {"source": "digits", "split": "train"},
        "seed": 0,
        "recipe": {"stages": ["pretrain", "warmup", "robust", "distill"], "precision": "bf16"},
        "student": {"name": "resnet8", "head": "own"},
    }
    return ReportContent(
        title="Noisy digits, seen clearly",
        dataset_name="digits",
        class_names=NAMES,
        ids=ids,
        labels=table,
        picture=picture,
        metrics=metrics,
        history=make_history(rng),
        faults=faults,
        config=config,
    )


@pytest.fixture(scope="session")
def empty_content(content):
    """The same data set with nothing found out about it."""
    return replace(content, labels=None, picture=None, metrics={}, history=(), faults=(), config={})


def make_judgement(given, right, verdicts, suggested, num_classes, rng):
    """A judgement whose figures follow from the probabilities."""
    n, wrong = len(given), 1 - right
    order = np.argsort(right, kind="stable")
    flagged = np.unique(np.linspace(1, n, 150).round().astype(np.int64))
    found = np.cumsum(wrong[order])
    matrix = np.eye(num_classes) * 0.75 + rng.dirichlet(np.full(num_classes, 0.3), num_classes) * 0.25
    rate = float(wrong.mean())
    return Judgement(
        verdicts=verdicts,
        suggested=suggested,
        p_given_right=right,
        p_suggested_right=np.clip(right + 0.4, 0, 0.99),
        p_open=np.where(verdicts == "drop", 0.8, 0.05),
        noise_rate=Interval(rate, rate - 0.03, rate + 0.04),
        closed_rate=Interval(0.7 * rate, 0.6 * rate, 0.8 * rate),
        open_rate=Interval(0.3 * rate, 0.2 * rate, 0.4 * rate),
        noise_rate_by_class=rng.uniform(0.05, 0.4, num_classes),
        transition=matrix,
        transition_low=0.8 * matrix,
        transition_high=np.minimum(1, 1.2 * matrix),
        cuts=Cuts(
            flagged=flagged,
            threshold=right[order][flagged - 1],
            precision=found[flagged - 1] / flagged,
            recall=found[flagged - 1] / wrong.sum(),
            chosen=int(np.searchsorted(flagged, (verdicts != "keep").sum())),
        ),
        review=ReviewPlan(order=order[: n // 2], expected_found=found[: n // 2]),
        advice=Advice(
            True, "About 22% of the labels are wrong, and most of them can be told from the others."
        ),
    )


@pytest.fixture(scope="session")
def audit_content():
    """An audit of noisy digits with every section of its page filled."""
    rng = np.random.default_rng(1)
    digits = load_digits()
    n, truth = len(digits.target), digits.target
    is_open, is_wrong = rng.random(n) < 0.06, rng.random(n) < 0.18
    given = np.where(is_wrong, (truth + rng.integers(1, 10, n)) % 10, truth)
    wrong = is_open | is_wrong
    right = np.clip(rng.beta(1.2, 9, n) * wrong + rng.beta(12, 1.3, n) * ~wrong, 0.0002, 0.9998)
    verdicts = np.select([right > 0.6, right > 0.35, is_open], ["keep", "ask", "drop"], "relabel")
    suggested = np.where(verdicts == "keep", given, truth)
    judgement = make_judgement(given, right, verdicts, suggested, 10, rng)
    names = np.array(NAMES, dtype=object)
    ids = np.array(
        [f"train/{names[label]}/scan-{row:05d}.png" for row, label in enumerate(given)], dtype=object
    )
    groups = np.full(n, -1)
    groups[[3, 13, 23]], groups[[40, 41]] = 0, 1
    leaks = np.full(n, "", dtype=object)
    leaks[[7, 8]] = "test/scan-1.png", "test/scan-2.png"
    faults = np.full(n, "", dtype=object)
    faults[5] = "blank"
    spot = 2 * np.pi * truth / 10
    table = pd.DataFrame(
        {
            "id": ids,
            "given": names[given],
            "verdict": verdicts.astype(object),
            "suggested": names[suggested],
            "p_given_right": right,
            "p_suggested_right": judgement.p_suggested_right,
            "p_open": judgement.p_open,
            "near_duplicate_group": groups,
            "leak": leaks,
            "faults": faults,
            "part": np.where(np.arange(n) < 1500, "train", "holdout").astype(object),
            "map_x": 3 * np.cos(spot) + rng.normal(0, 0.45, n),
            "map_y": 3 * np.sin(spot) + rng.normal(0, 0.45, n),
        }
    )
    table.loc[0, "given"], table.loc[0, "verdict"], table.loc[0, "p_given_right"] = None, "ask", np.nan
    tint = rng.uniform(0.5, 1, (n, 3, 1, 1))

    def picture(row):
        grey = np.kron(digits.images[row] / 16, np.ones((4, 4)))
        return (255 * (1 - grey[None] * tint[row])).astype(np.uint8)

    return AuditContent(
        title="Digits, audited",
        data_name="digits",
        class_names=NAMES,
        table=table,
        judgement=judgement,
        picture=picture,
        faults=(
            ImageFault("train/six/scan-01901.png", "unreadable", "cannot identify image file", dropped=True),
            ImageFault("train/zero/scan-00005.png", "blank", "one colour", dropped=False),
        ),
        config={"features": "simclr", "judging": {"precision": 0.95}, "seed": 0},
        seconds={"features": 71.2, "evidence": 3.1, "judging": 0.4},
        versions={"lauter": "0.1.0", "numpy": "2.4"},
        truth={"auroc": 0.981, "f1": 0.913, "true_noise_rate": 0.221, "brier": 0.0412},
    )


HOSTILE_NAMES = (
    "</script><script>document.title='broken'</script>",
    "<img src=x onerror=\"document.title='broken'\">",
    "a\\b'\"`${1}\u2028\u2029\u202e\n,{{ 7 * 7 }}<!--",
    "=cmd|'/c calc'!A1",
)


@pytest.fixture(scope="session")
def hostile_audit(audit_content):
    """The same audit with names, ids and words that try to break out of the page or of its files."""
    renamed = dict(zip(NAMES, (*HOSTILE_NAMES, *NAMES[4:]), strict=True))
    table = audit_content.table.copy()
    for column in ("given", "suggested"):
        table[column] = [None if name is None or name != name else renamed[name] for name in table[column]]
    table.loc[audit_content.judgement.review.order[:4], "id"] = HOSTILE_NAMES
    table.loc[audit_content.judgement.review.order[0], ["leak", "faults", "part"]] = HOSTILE_NAMES[:3]
    table.loc[audit_content.judgement.review.order[:2], "near_duplicate_group"] = 9
    return replace(
        audit_content,
        title=HOSTILE_NAMES[0],
        data_name=HOSTILE_NAMES[1],
        class_names=tuple(renamed.values()),
        table=table,
        faults=(ImageFault(HOSTILE_NAMES[0], HOSTILE_NAMES[1], HOSTILE_NAMES[2], dropped=True),),
        config={HOSTILE_NAMES[0]: HOSTILE_NAMES[1]},
        seconds={HOSTILE_NAMES[0]: 1.0},
        versions={HOSTILE_NAMES[1]: HOSTILE_NAMES[2]},
        truth={HOSTILE_NAMES[0]: 0.5},
    )


NEEDED = bool(os.environ.get("CI")) or os.environ.get("LAUTER_REQUIRE_BROWSER") == "1"
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = [
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"),
    *("--disable-sync", "--no-first-run"),
]


@pytest.fixture(scope="module")  # no longer: while it is open, no test may start a loop of asyncio
def browser():
    """The system's Chromium; a machine without it skips these tests, unless it has to have one."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        sync_playwright = None
    missing = "chromium" if CHROMIUM is None else "playwright" if sync_playwright is None else None
    if missing:
        reason = f"no {missing} here to open the page with"
        if NEEDED:
            pytest.fail(f"{reason}, and CI or LAUTER_REQUIRE_BROWSER asks for it")
        pytest.skip(reason)
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser):
    """Open a page in a fresh browser profile; whatever goes wrong in it fails the test."""
    contexts, complaints = [], []

    def open_one(path: Path, width=1280, height=900, script=None, **options):
        context = browser.new_context(viewport={"width": width, "height": height}, **options)
        context.set_default_timeout(5000)
        contexts.append(context)
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("request", lambda request: complaints.extend(find_foreign(request.url)))
        page.goto(path.as_uri())
        page.wait_for_selector(".tile")
        return page

    yield open_one
    for context in contexts:
        context.close()
    assert complaints == []


def find_foreign(url):
    return [] if url.startswith(("file:", "data:", "blob:")) else [url]
