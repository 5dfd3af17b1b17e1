"""Evidence: what is believed of images, and that no label has a say in its own case."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lauter.auditing import evidence as room
from lauter.auditing.evidence import Evidence, EvidenceConfig, gather_evidence
from lauter.auditing.sources import Given, draw_scored, join_sources, weigh_sources
from lauter.auditing.voting import Votes
from lauter.errors import ConfigError, DataError
from lauter.noisy import top_beliefs
from lauter.noisy.top_beliefs import TopBeliefs

Array = np.ndarray


def draw(count: int = 300, classes: int = 3, rate: float = 0.2, seed: int = 0) -> tuple[Array, Array, Array]:
    """Features, given labels, true labels."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, classes, count)
    given = np.where(rng.random(count) < rate, (true + rng.integers(1, classes, count)) % classes, true)
    features = 2 * rng.normal(size=(classes, 6))[true] + rng.normal(size=(count, 6))
    return features.astype(np.float32), given, true


def gather(features: Array | None, labels: Array, classes: int = 3, **more: object) -> Evidence:
    config = EvidenceConfig(**{key: more.pop(key) for key in list(more) if key != "probabilities"})  # type: ignore[arg-type]
    return gather_evidence(features, labels, classes, config, np.random.default_rng(0), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("sources", ["both", "votes", "head"])
def test_beliefs_know_the_truth_and_doubt_wrong_labels(sources: str) -> None:
    features, given, true = draw()
    found = gather(features, given, sources=sources)
    beliefs = found.beliefs.dense()
    np.testing.assert_allclose(beliefs.sum(1), 1, atol=1e-5)
    assert np.mean(beliefs.argmax(1) == true) > 0.9
    assert found.beliefs.given[given == true].mean() > found.beliefs.given[given != true].mean() + 0.5
    np.testing.assert_allclose(found.prior.sum(), 1)
    assert (found.votes is None) == (sources == "head")
    assert (found.predictions is None) == (sources == "votes")
    assert (found.heads is None) == (sources == "votes")
    assert sum(found.shares.values()) == pytest.approx(1)
    assert set(found.seconds) >= {"beliefs"}


def test_the_beliefs_are_the_weighted_mean_of_the_sources() -> None:
    features, given, _ = draw(rate=0.3)
    found = gather(features, given)
    assert found.votes is not None
    assert found.predictions is not None
    mean = sum(
        found.shares[name] * part.dense()
        for name, part in (("votes", found.votes), ("predictions", found.predictions))
    )
    np.testing.assert_allclose(found.beliefs.dense(), mean, atol=1e-5)
    plain = gather(features, given, choose=False)
    assert plain.shares == {"votes": 0.5, "predictions": 0.5}
    assert plain.neighbours is not None
    assert plain.neighbours.count == 30


def test_evidence_is_drawn_by_the_generator_alone() -> None:
    features, given, _ = draw()
    one, two = gather(features, given), gather(features, given)
    np.testing.assert_array_equal(one.beliefs.probs, two.beliefs.probs)
    other = gather_evidence(features, given, 3, None, np.random.default_rng(1))
    assert (one.beliefs.given != other.beliefs.given).any()


def vote_plainly(votes: Votes, rounds: int, row: int, classes: int) -> Array:
    """What the neighbours of one image say, its fold's labels having no say in how much votes weigh."""
    hidden = [
        -1 if votes.folds[i] == votes.folds[row] else int(votes.labels[i]) for i in range(len(votes.labels))
    ]
    trust = [float(label >= 0) for label in votes.labels]

    def ask(image: int, voters: list[int], weights: list[float]) -> Array:
        known = [(hidden[i], weights[i]) for i in range(len(hidden)) if hidden[i] >= 0]
        prior = np.array([sum(w for label, w in known if label == k) + 0.5 for k in range(classes)])
        counts = 0.01 * votes.rows.shape[1] * prior / prior.sum()
        for voter in votes.rows[image]:
            if voters[voter] >= 0:
                counts[voters[voter]] += weights[voter]
        return counts / counts.sum()

    for _ in range(rounds):
        said = [ask(image, hidden, trust) for image in range(len(trust))]
        given = votes.labels.tolist()
        trust = [said[i][given[i]] / said[i].max() if given[i] >= 0 else 0.0 for i in range(len(trust))]
    return ask(row, votes.labels.tolist(), trust)


@pytest.mark.parametrize("rounds", [0, 1, 2])
def test_votes_are_those_written_out(rounds: int) -> None:
    rng = np.random.default_rng(2)
    labels = rng.integers(-1, 3, 40)
    rows = np.array([rng.permutation(np.delete(np.arange(40), row))[:6] for row in range(40)], dtype=np.int32)
    votes = Votes.start(rows, labels, rng.integers(0, 3, 40), 3)
    for _ in range(rounds):
        votes = votes.weigh()
    found = votes.predict(np.arange(40))
    for row in range(40):
        np.testing.assert_allclose(found[row], vote_plainly(votes, rounds, row, 3), rtol=1e-9)


@pytest.mark.parametrize("rounds", [1, 3])
def test_a_label_has_no_say_in_its_own_votes(rounds: int) -> None:
    rng = np.random.default_rng(3)
    labels, folds = rng.integers(0, 3, 60), rng.integers(0, 4, 60)
    rows = np.array([rng.permutation(np.delete(np.arange(60), row))[:8] for row in range(60)], dtype=np.int32)

    def ask(given: Array) -> Array:
        votes = Votes.start(rows, given, folds, 3)
        for _ in range(rounds):
            votes = votes.weigh()
        return votes.predict(np.arange(60))

    before = ask(labels)
    moved = 0.0
    for row in range(0, 60, 7):
        changed = labels.copy()
        changed[row] = (labels[row] + 1) % 3
        after = ask(changed)
        np.testing.assert_array_equal(after[row], before[row])
        moved = max(moved, np.abs(after - before).max())
    assert moved > 0.01


def test_unlabelled_images_are_believed_something_and_change_nothing() -> None:
    features, given, true = draw(400)
    given[300:] = -1
    found = gather(features, given)
    assert np.mean(found.beliefs.classes[300:, 0] == true[300:]) > 0.9
    np.testing.assert_array_equal(found.beliefs.given[300:], 0)
    votes = Votes.start(np.tile(np.arange(300, 310, dtype=np.int32), (400, 1)), given, np.arange(400) % 2, 3)
    prior = np.array([np.sum(given[(np.arange(400) % 2 == 1) & (given >= 0)] == k) + 0.5 for k in range(3)])
    np.testing.assert_allclose(votes.predict(np.array([0]))[0], prior / prior.sum())


def test_a_class_of_one_image_and_classes_without_any() -> None:
    features, given, _ = draw()
    given[5] = 4
    found = gather(features, given, classes=6)
    assert np.isfinite(found.beliefs.dense()).all()
    assert found.beliefs.dense()[5, 4] < 0.05
    assert (found.prior > 0).all()


def test_constant_features_leave_the_prior() -> None:
    labels = np.repeat([0, 1], [80, 20])
    found = gather(np.ones((100, 4), np.float32), labels, classes=2, sources="head")
    np.testing.assert_allclose(found.beliefs.dense(), np.tile([0.8, 0.2], (100, 1)), atol=0.02)
    assert np.isfinite(gather(np.ones((100, 4), np.float32), labels, classes=2).beliefs.dense()).all()


def test_very_few_images_are_enough() -> None:
    features = np.array([[0.0, 1], [0.1, 1], [5, 0], [5.1, 0]], np.float32)
    found = gather(features, np.array([0, 0, 1, 1]), classes=2)
    assert np.isfinite(found.beliefs.dense()).all()
    pair = gather(features[1:3], np.array([0, 1]), classes=2)
    assert pair.beliefs.shape == (2, 2)


def test_many_classes_are_cut_to_the_largest(monkeypatch: pytest.MonkeyPatch) -> None:
    features, given, _ = draw(600, classes=50, rate=0.1)
    whole = gather(features, given, classes=50)
    monkeypatch.setattr(top_beliefs, "DENSE_ENTRIES", 100)
    cut = gather(features, given, classes=50)
    assert (whole.beliefs.depth, cut.beliefs.depth) == (50, 32)
    np.testing.assert_array_equal(cut.beliefs.classes[:, 0], whole.beliefs.classes[:, 0])
    np.testing.assert_allclose(cut.beliefs.given, whole.beliefs.given)


def test_features_mapped_from_disk_in_half_precision_are_read(tmp_path: Path) -> None:
    features, given, true = draw()
    np.save(tmp_path / "features.npy", features.astype(np.float16))
    mapped = np.load(tmp_path / "features.npy", mmap_mode="r")
    found = gather(mapped, given)
    assert np.mean(found.beliefs.classes[:, 0] == true) > 0.9


def test_given_probabilities_are_the_beliefs() -> None:
    _, given, _ = draw()
    probabilities = np.random.default_rng(4).dirichlet([1, 1, 1], 300)
    found = gather(None, given, probabilities=probabilities)
    np.testing.assert_allclose(found.beliefs.dense(), probabilities, atol=1e-6)
    assert (found.votes, found.heads, found.neighbours, found.nearness) == (None, None, None, None)
    assert found.find_agreement().all()


def test_features_beside_probabilities_vote() -> None:
    features, given, true = draw()
    blurred = np.full((300, 3), 0.3) + 0.1 * np.eye(3)[true]
    found = gather(features, given, probabilities=blurred, choose=False)
    assert found.votes is not None
    assert found.predictions is not None
    np.testing.assert_allclose(found.predictions.dense(), blurred, atol=1e-6)
    np.testing.assert_allclose(found.beliefs.dense(), (blurred + found.votes.dense()) / 2, atol=1e-6)
    assert found.heads is None
    assert found.find_agreement().mean() > 0.9
    alone = gather(features, given, probabilities=blurred, sources="head")
    assert alone.votes is None


def test_the_better_source_weighs_more() -> None:
    _, given, true = draw(rate=0.1)
    good = np.full((300, 3), 0.02) + 0.94 * np.eye(3)[true]
    poor = np.random.default_rng(5).dirichlet([1, 1, 1], 300)
    shown = draw_scored(given, 3, np.random.default_rng(0))
    for first, second, expected in ((good, poor, 1), (poor, good, 0)):
        shares = weigh_sources({"one": Given(first), "two": Given(second)}, given, shown, 3, True)
        assert shares["one"] == pytest.approx(expected, abs=0.11)
        assert shares["one"] + shares["two"] == pytest.approx(1)
    parts = join_sources({"one": Given(good)}, {"one": 1.0}, given, 3)
    assert isinstance(parts["beliefs"], TopBeliefs)


def test_agreement_is_of_classes_with_the_prior_taken_out() -> None:
    features, given, _ = draw()
    found = gather(features, given)
    assert found.votes is not None
    assert found.predictions is not None
    named = [(part.dense() / found.prior).argmax(1) for part in (found.votes, found.predictions)]
    np.testing.assert_array_equal(found.find_agreement(), named[0] == named[1])


def test_it_tells_how_far_it_is() -> None:
    told: list[tuple[str, float]] = []
    features, given, _ = draw()
    gather_evidence(
        features,
        given,
        3,
        None,
        np.random.default_rng(0),
        report=lambda part, done: told.append((part, done)),
    )
    assert list(dict.fromkeys(part for part, _ in told)) == ["neighbours", "axes", "heads", "beliefs"]
    assert all(0 <= done <= 1 for _, done in told)


def _spoil(change: Callable[[Array], object]) -> Array:
    features, _, _ = draw(40)
    change(features)
    return features


def test_bad_features_are_refused() -> None:
    _, given, _ = draw(40)
    with pytest.raises(DataError, match="features of image 17 are not finite"):
        gather(_spoil(lambda f: f[17].fill(np.nan)), given)
    with pytest.raises(DataError, match="features of image 3 are not finite"):
        gather(_spoil(lambda f: f[3:9].fill(np.inf)), given)
    with pytest.raises(DataError, match=r"\[N, D\] for 40 labels, not \[39, 6\]"):
        gather(draw(40)[0][:39], given)
    with pytest.raises(DataError, match="floating point numbers, not int64"):
        gather(np.ones((40, 3), np.int64), given)


def test_bad_labels_are_refused() -> None:
    features, given, _ = draw(40)
    with pytest.raises(DataError, match=r"labels must be integers \[N\]"):
        gather(features, given.astype(float))
    with pytest.raises(DataError, match=r"labels must be in -1\.\.2"):
        gather(features, given + 1)
    with pytest.raises(DataError, match="must be 2 or more, not 1"):
        gather(features, np.where(np.arange(40) == 0, 0, -1))
    with pytest.raises(DataError, match="two classes or more, not 1"):
        gather(features, given * 0, classes=1)


def test_bad_probabilities_are_refused() -> None:
    _, given, _ = draw(40)
    fine = np.full((40, 3), 1 / 3)
    for row, values in ((4, [0.5, 0.6, 0.4]), (5, [-0.5, 1, 0.5]), (6, [np.nan, 0.5, 0.5])):
        broken = fine.copy()
        broken[row] = values
        with pytest.raises(DataError, match=f"probabilities of image {row} are no distribution"):
            gather(None, given, probabilities=broken)
    with pytest.raises(DataError, match=r"for 40 labels and 3 classes, not \[40, 2\]"):
        gather(None, given, probabilities=fine[:, :2])


def test_settings_that_cannot_be_are_refused() -> None:
    _, given, _ = draw(40)
    with pytest.raises(ConfigError, match="needs features or probabilities"):
        gather(None, given)
    with pytest.raises(ConfigError, match="only where there are features"):
        gather(None, given, sources="votes", probabilities=np.full((40, 3), 1 / 3))


@pytest.mark.parametrize(
    "bad",
    [
        {"sources": "oracle"},
        {"neighbours": 0},
        {"rounds": -1},
        {"folds": 1},
        {"strength": -1.0},
        {"recall": 2},
    ],
)
def test_settings_out_of_range_are_refused(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        EvidenceConfig(**bad)  # type: ignore[arg-type]


def test_folds_are_fewer_where_a_step_costs_much(monkeypatch: pytest.MonkeyPatch) -> None:
    features, given, _ = draw(60)
    usual = gather(features, given, sources="head").heads
    monkeypatch.setattr(room, "_CHEAP_STEP", 1.0)
    dear = gather(features, given, sources="head").heads
    asked = gather(features, given, sources="head", folds=3).heads
    assert [len(heads.weights) for heads in (usual, dear, asked) if heads is not None] == [5, 2, 3]
