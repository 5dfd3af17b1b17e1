"""Student heads: an embedding into the teacher's space and a classifier there, folded into one layer."""

import copy

import torch
from torch import Tensor, nn

from lauter.errors import ModelError
from lauter.models.network import Network, NoHead


class EmbeddedHead(nn.Module):
    """Linear embedding of the student's features into the teacher's space, then a linear classifier.

    No normalisation and no activation stand between the two, so that :func:`fold_head` can make one layer of
    them and the student costs nothing extra.

    Args:
        student_size: D_s, the student's feature size.
        teacher_size: D, the teacher's feature size.
        num_classes: K; 0 for an embedding alone, whose logits have no columns.
        classifier: D -> K, for example the teacher's (see :func:`copy_teacher_head`); None for a fresh one.

    Raises:
        ModelError: a size is not positive, or ``classifier`` does not fit the sizes.

    Source: Wang, Ge and Wu (2021), arXiv 2011.01424. Departures: none known.
    """

    def __init__(
        self, student_size: int, teacher_size: int, num_classes: int, classifier: nn.Linear | None = None
    ) -> None:
        super().__init__()
        if student_size < 1 or teacher_size < 1 or num_classes < 0:
            sizes = f"{student_size} -> {teacher_size} -> {num_classes}"
            raise ModelError(f"an embedded head needs positive sizes, not {sizes}")
        if classifier is not None and (classifier.in_features, classifier.out_features) != (
            teacher_size,
            num_classes,
        ):
            raise ModelError(
                f"the classifier maps {classifier.in_features} -> {classifier.out_features}, "
                f"expected {teacher_size} -> {num_classes}"
            )
        self.embedding = nn.Linear(student_size, teacher_size)
        self.classifier: nn.Module = NoHead()
        if classifier is not None:
            self.classifier = classifier
        elif num_classes:
            self.classifier = nn.Linear(teacher_size, num_classes)

    def embed(self, features: Tensor) -> Tensor:
        """Student features [B, D_s] -> features [B, D] in the teacher's space: what mimicking compares."""
        embedded: Tensor = self.embedding(features)
        return embedded

    def classify(self, embedded: Tensor) -> Tensor:
        """Embedded features [B, D] -> logits [B, K]; saves embedding twice where both are needed."""
        logits: Tensor = self.classifier(embedded)
        return logits

    def forward(self, features: Tensor) -> Tensor:
        """Student features [B, D_s] -> logits [B, K]."""
        return self.classify(self.embed(features))


def copy_teacher_head(teacher: Network, student_size: int) -> EmbeddedHead:
    """Build a student's head that classifies with a frozen copy of the teacher's classifier.

    With it a student learns to classify by mimicking features alone, without any label.

    Args:
        teacher: its head must be one ``nn.Linear``; it is copied, never changed.
        student_size: D_s, the student's feature size.

    Returns:
        A fresh embedding D_s -> D before the teacher's classifier, whose weights take no gradient.

    Raises:
        ModelError: the teacher has no head, or one that is not a single linear layer.
    """
    if type(teacher.head) is not nn.Linear:
        raise ModelError(
            f"{teacher.name}: its head is a {type(teacher.head).__name__}, not one nn.Linear that could be "
            "copied; fold it first with fold_head, or let the student train its own classifier"
        )
    classifier = copy.deepcopy(teacher.head).requires_grad_(False)
    head = EmbeddedHead(student_size, classifier.in_features, classifier.out_features, classifier)
    return head.to(device=classifier.weight.device)


def fold_head(network: Network) -> Network:
    r"""Copy a network with its embedded head folded into one linear layer.

    .. math:: W = W_c W_e, \qquad b = W_c b_e + b_c

    computed in float64, so that in eval mode the copy's logits equal the original's to float32 rounding.

    Args:
        network: left as it is. Without an :class:`EmbeddedHead` it is copied unchanged.

    Returns:
        A network whose head is one ``nn.Linear`` D_s -> K: a plain student's parameters and operations.

    Raises:
        ModelError: the embedded head has no classifier, or one that is not a plain ``nn.Linear``.
    """
    folded = copy.deepcopy(network)
    head = folded.head
    if not isinstance(head, EmbeddedHead):
        return folded
    # Exactly nn.Linear: a subclass may compute something else (a normalised product, say) from its weight.
    if type(head.classifier) is not nn.Linear:
        raise ModelError(
            f"{network.name}: its embedded head's classifier is a {type(head.classifier).__name__}; only an "
            "embedding followed by one nn.Linear can be folded"
        )
    embedding, classifier = head.embedding, head.classifier
    linear = nn.Linear(
        embedding.in_features,
        classifier.out_features,
        device=embedding.weight.device,
        dtype=embedding.weight.dtype,
    )
    with torch.no_grad():
        outer = classifier.weight.double()
        bias = outer @ embedding.bias.double()
        if classifier.bias is not None:
            bias += classifier.bias.double()
        linear.weight.copy_(outer @ embedding.weight.double())
        linear.bias.copy_(bias)
    folded.head = linear.train(network.head.training)
    return folded
