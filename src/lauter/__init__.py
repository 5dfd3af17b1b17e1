"""lauter: from doubtful labels to a small, good model.

>>> import lauter
>>> data = lauter.open_dataset("digits", size=100)
>>> len(data), data.num_classes
(100, 10)
"""

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from lauter.artefacts import TrainedModel, export_onnx, load
    from lauter.audit_config import AuditConfig, load_audit_preset
    from lauter.auditing.auditor import LabelAuditor
    from lauter.auditing.corrected import write_corrected
    from lauter.auditing.decisions import apply_decisions
    from lauter.auditing.label_table import with_checked_labels
    from lauter.config import FitConfig, load_preset
    from lauter.data import Dataset, corrupt, open_dataset
    from lauter.data.multilabel import MultiLabelDataset, open_multilabel
    from lauter.distillation.doctor import examine_teacher
    from lauter.distillation.stored import read_features, write_features
    from lauter.errors import LauterError
    from lauter.label_audit import AuditOptions, AuditResult, audit
    from lauter.models import Network, create_network, wrap_module
    from lauter.multilabel import evaluate_multilabel, fit_multilabel, load_multilabel_preset
    from lauter.pipeline import DistillResult, FitResult, TrainResult, distill, fit, train
    from lauter.preparation import RunOptions
    from lauter.results import report
    from lauter.scoring import evaluate

_PUBLIC = {
    "AuditConfig": "lauter.audit_config",
    "AuditOptions": "lauter.label_audit",
    "AuditResult": "lauter.label_audit",
    "Dataset": "lauter.data",
    "DistillResult": "lauter.pipeline",
    "FitConfig": "lauter.config",
    "FitResult": "lauter.pipeline",
    "MultiLabelDataset": "lauter.data.multilabel",
    "LabelAuditor": "lauter.auditing.auditor",
    "LauterError": "lauter.errors",
    "Network": "lauter.models",
    "RunOptions": "lauter.preparation",
    "TrainResult": "lauter.pipeline",
    "TrainedModel": "lauter.artefacts",
    "apply_decisions": "lauter.auditing.decisions",
    "audit": "lauter.label_audit",
    "corrupt": "lauter.data",
    "create_network": "lauter.models",
    "distill": "lauter.pipeline",
    "evaluate": "lauter.scoring",
    "evaluate_multilabel": "lauter.multilabel",
    "examine_teacher": "lauter.distillation.doctor",
    "export_onnx": "lauter.artefacts",
    "fit": "lauter.pipeline",
    "fit_multilabel": "lauter.multilabel",
    "load": "lauter.artefacts",
    "load_audit_preset": "lauter.audit_config",
    "load_multilabel_preset": "lauter.multilabel",
    "load_preset": "lauter.config",
    "open_dataset": "lauter.data",
    "open_multilabel": "lauter.data.multilabel",
    "read_features": "lauter.distillation.stored",
    "report": "lauter.results",
    "train": "lauter.pipeline",
    "with_checked_labels": "lauter.auditing.label_table",
    "wrap_module": "lauter.models",
    "write_corrected": "lauter.auditing.corrected",
    "write_features": "lauter.distillation.stored",
}

__all__ = [
    "AuditConfig",
    "AuditOptions",
    "AuditResult",
    "Dataset",
    "DistillResult",
    "FitConfig",
    "FitResult",
    "LabelAuditor",
    "LauterError",
    "MultiLabelDataset",
    "Network",
    "RunOptions",
    "TrainResult",
    "TrainedModel",
    "__version__",
    "apply_decisions",
    "audit",
    "corrupt",
    "create_network",
    "distill",
    "evaluate",
    "evaluate_multilabel",
    "examine_teacher",
    "export_onnx",
    "fit",
    "fit_multilabel",
    "load",
    "load_audit_preset",
    "load_multilabel_preset",
    "load_preset",
    "open_dataset",
    "open_multilabel",
    "read_features",
    "report",
    "train",
    "with_checked_labels",
    "wrap_module",
    "write_corrected",
    "write_features",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command's help must not wait for torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lauter' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
