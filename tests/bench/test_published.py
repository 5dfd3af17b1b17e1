"""Published numbers stand beside measured ones of the same protocol, and beside no others."""

from lauter.bench.distill import METHODS, PROTOCOLS
from lauter.bench.pages import PAGES
from lauter.bench.published import PAIRS, PROTOCOL, PUBLISHED, stand_beside
from lauter.bench.records import Record
from lauter.models import create_network


def make_record(method: str, seed: int, value: float, data: str = "cifar100-crd vgg13 -> vgg8") -> Record:
    return Record("distill", data, method, seed, "accuracy_last", value)


def test_every_name_is_one_that_can_be_measured() -> None:
    assert PROTOCOL in PROTOCOLS
    assert set(PUBLISHED) <= {"teacher", *METHODS}
    for pair in PAIRS:
        teacher, _, student = pair.partition(" -> ")
        for name in (teacher, student):
            assert create_network(name, 100).name == name


def test_every_pair_has_a_teacher_above_its_plain_student() -> None:
    for pair in PAIRS:
        assert PUBLISHED["teacher"][pair] > PUBLISHED["none"][pair] > 60
        assert PUBLISHED["crd"][pair] > PUBLISHED["kd"][pair] > PUBLISHED["none"][pair]


def test_published_numbers_stand_beside_measured_ones() -> None:
    text = stand_beside(
        [make_record("kd", 0, 0.73), make_record("kd", 1, 0.74), make_record("lshl2", 0, 0.7412)]
    )
    assert text.startswith("vgg13 -> vgg8:")
    assert "| kd | 73.50 ± 0.71 | 2 | 72.98 |" in text
    assert "| lshl2 | 74.12 | 1 | — |" in text


def test_nothing_stands_beside_another_protocol_or_pair() -> None:
    assert stand_beside([make_record("kd", 0, 0.8, "cifar10-10k resnet20 -> resnet8")]) == ""
    assert stand_beside([]) == ""
    own = stand_beside([make_record("kd", 0, 0.8, "cifar100-crd vgg8 -> vgg8")])
    assert "| kd | 80.00 | 1 | — |" in own


def test_there_is_a_page_for_it() -> None:
    (page,) = [page for page in PAGES if page.render is stand_beside]
    assert page.result == f"distill-{PROTOCOL}"
