"""Student heads and their folding into one linear layer."""

import copy

import pytest
import torch
from torch import Tensor, nn

from lauter.errors import ModelError
from lauter.models import (
    CIFAR_ZOO,
    EmbeddedHead,
    InputSpec,
    Network,
    copy_teacher_head,
    count_flops,
    count_parameters,
    create_network,
    fold_head,
    wrap_module,
)

# One zoo student per family and size of the published pairs; the others differ in depth alone.
STUDENTS = ["resnet8", "resnet8x4", "wrn_16_1", "wrn_16_2", "vgg8", "MobileNetV2", "ShuffleV1", "ShuffleV2"]
OTHERS = ["timm:mobilenetv3_small_050", "torchvision:mobilenet_v3_small"]


def embed_student(name: str, teacher_size: int = 48, num_classes: int = 7) -> Network:
    torch.manual_seed(0)
    image_size = 32 if ":" in name else None
    student = create_network(name, num_classes, image_size=image_size)
    student.head = EmbeddedHead(student.feature_size, teacher_size, num_classes)
    return student.eval()


def pixels() -> Tensor:
    return torch.randint(
        0, 256, (3, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(1)
    )


@pytest.mark.parametrize("name", STUDENTS + OTHERS)
def test_folded_network_says_the_same_at_a_plain_students_cost(name: str) -> None:
    student = embed_student(name)
    folded = fold_head(student)
    with torch.no_grad():
        before, after = student(pixels()), folded(pixels())
    scale = float(before.logits.abs().max())
    torch.testing.assert_close(after.logits, before.logits, rtol=1e-5, atol=2e-6 * scale)
    torch.testing.assert_close(after.features, before.features, rtol=0, atol=0)
    plain = create_network(name, 7, image_size=32)
    assert count_parameters(folded) == count_parameters(plain)
    assert count_flops(folded) == count_flops(plain)
    assert {k: v.shape for k, v in folded.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }
    assert count_parameters(student) > count_parameters(plain)


@pytest.mark.parametrize("name", CIFAR_ZOO)
def test_every_zoo_students_head_folds(name: str) -> None:
    """The head alone, for each feature size of the zoo."""
    with torch.device("meta"):
        feature_size = CIFAR_ZOO[name]().feature_size
    torch.manual_seed(1)
    head = EmbeddedHead(feature_size, 64, 10)
    network = wrap_module(nn.Flatten(), feature_size, 10, InputSpec(4), head=head).eval()
    folded = fold_head(network)
    features = torch.randn(5, feature_size)
    torch.testing.assert_close(folded.head(features), head(features), rtol=1e-5, atol=1e-5)


def test_folded_weights_by_the_formula() -> None:
    student = embed_student("resnet8", teacher_size=5, num_classes=3)
    head = student.head
    assert isinstance(head, EmbeddedHead)
    folded = fold_head(student).head
    assert isinstance(folded, nn.Linear)
    outer, inner = head.classifier, head.embedding
    assert isinstance(outer, nn.Linear)
    for parameter in (*outer.parameters(), *inner.parameters(), *folded.parameters()):
        parameter.requires_grad_(False)
    for k in range(3):
        bias = float(outer.bias[k])
        for d in range(5):
            bias += float(outer.weight[k, d]) * float(inner.bias[d])
        assert float(folded.bias[k]) == pytest.approx(bias, rel=1e-6, abs=1e-8)
        for j in (0, 31, 63):
            weight = sum(float(outer.weight[k, d]) * float(inner.weight[d, j]) for d in range(5))
            assert float(folded.weight[k, j]) == pytest.approx(weight, rel=1e-6, abs=1e-8)


def test_head_parameters_of_vgg8_from_resnet50() -> None:
    with torch.device("meta"):
        head = EmbeddedHead(512, 2048, 100)
        student = Network(CIFAR_ZOO["vgg8"](), 100, InputSpec(32), head, "vgg8")
        folded = fold_head(student)
    assert sum(p.numel() for p in head.parameters()) == 1_255_524
    assert sum(p.numel() for p in folded.head.parameters()) == 51_300
    assert count_parameters(folded) == 3_965_028


def test_folding_leaves_the_student_as_it_is() -> None:
    student = embed_student("resnet8").train()
    before = copy.deepcopy(student.state_dict())
    folded = fold_head(student)
    assert folded.training
    assert folded.head.training
    assert all(p.requires_grad for p in folded.parameters())
    with torch.no_grad():
        for parameter in folded.parameters():
            parameter.zero_()
    for key, value in student.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=0)


@pytest.mark.parametrize("num_classes", [0, 4])
def test_a_plain_network_is_copied_unchanged(num_classes: int) -> None:
    network = create_network("resnet8", num_classes)
    folded = fold_head(network)
    assert folded is not network
    assert folded.head is not network.head
    for key, value in network.state_dict().items():
        torch.testing.assert_close(folded.state_dict()[key], value, rtol=0, atol=0)


def test_folding_a_classifier_without_bias() -> None:
    student = embed_student("resnet8", 5, 3)
    student.head = EmbeddedHead(64, 5, 3, nn.Linear(5, 3, bias=False))
    torch.testing.assert_close(
        fold_head(student)(pixels()).logits, student(pixels()).logits, rtol=1e-5, atol=1e-5
    )


def test_what_cannot_be_folded_is_refused() -> None:
    class Normalised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(nn.functional.normalize(x))

    student = embed_student("resnet8", 5, 3)
    student.head = EmbeddedHead(64, 5, 0)
    with pytest.raises(ModelError, match="classifier is a NoHead"):
        fold_head(student)
    student.head = EmbeddedHead(64, 5, 3, Normalised(5, 3))
    with pytest.raises(ModelError, match="classifier is a Normalised"):
        fold_head(student)


def test_embedded_head_is_two_linear_maps() -> None:
    torch.manual_seed(2)
    head = EmbeddedHead(3, 4, 2)
    features = torch.randn(5, 3)
    embedded = head.embed(features)
    assert [type(module) for module in head.children()] == [nn.Linear, nn.Linear]
    torch.testing.assert_close(embedded, features @ head.embedding.weight.T + head.embedding.bias)
    torch.testing.assert_close(head(features), head.classify(embedded), rtol=0, atol=0)
    assert (head.embed(-features) < 0).any(), "no activation"
    torch.testing.assert_close(
        head.embed(features) + head.embed(-features), 2 * head.embedding.bias.expand(5, 4)
    )


def test_an_embedding_alone() -> None:
    head = EmbeddedHead(3, 4, 0)
    assert head(torch.zeros(5, 3)).shape == (5, 0)
    assert head.embed(torch.zeros(5, 3)).shape == (5, 4)


@pytest.mark.parametrize(
    ("sizes", "classifier", "message"),
    [
        ((0, 4, 2), None, "positive sizes, not 0 -> 4 -> 2"),
        ((3, 0, 2), None, "positive sizes"),
        ((3, 4, -1), None, "positive sizes"),
        ((3, 4, 2), nn.Linear(3, 2), "maps 3 -> 2, expected 4 -> 2"),
        ((3, 4, 2), nn.Linear(4, 3), "maps 4 -> 3, expected 4 -> 2"),
    ],
)
def test_sizes_that_do_not_fit(
    sizes: tuple[int, int, int], classifier: nn.Linear | None, message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        EmbeddedHead(*sizes, classifier)


def test_the_teachers_classifier_is_copied_and_frozen() -> None:
    torch.manual_seed(3)
    teacher = create_network("wrn_16_2", 6)
    student = create_network("resnet8", 6)
    student.head = copy_teacher_head(teacher, student.feature_size)
    assert isinstance(teacher.head, nn.Linear)
    classifier = student.head.classifier
    assert isinstance(classifier, nn.Linear)
    torch.testing.assert_close(classifier.weight, teacher.head.weight, rtol=0, atol=0)
    assert classifier.weight.data_ptr() != teacher.head.weight.data_ptr()
    assert teacher.head.weight.requires_grad
    student(pixels()).logits.sum().backward()
    assert [name for name, p in student.head.named_parameters() if p.grad is not None] == [
        "embedding.weight",
        "embedding.bias",
    ]
    assert not any(p.requires_grad for p in classifier.parameters())
    # A student whose embedding gives the teacher's features says what the teacher says.
    features = torch.randn(2, teacher.feature_size)
    torch.testing.assert_close(student.head.classify(features), teacher.head(features))


def test_a_teacher_without_linear_head_is_refused() -> None:
    with pytest.raises(ModelError, match="head is a NoHead"):
        copy_teacher_head(create_network("resnet8", 0), 64)
    with pytest.raises(ModelError, match="fold it first"):
        copy_teacher_head(embed_student("resnet8"), 64)
