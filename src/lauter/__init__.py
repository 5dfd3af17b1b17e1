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
    from lauter.config import FitConfig, load_preset
    from lauter.data import Dataset, corrupt, open_dataset
    from lauter.models import Network, create_network, wrap_module
    from lauter.pipeline import DistillResult, FitResult, TrainResult, distill, fit, train
    from lauter.preparation import RunOptions
    from lauter.results import report
    from lauter.scoring import evaluate

_PUBLIC = {
    "Dataset": "lauter.data",
    "DistillResult": "lauter.pipeline",
    "FitConfig": "lauter.config",
    "FitResult": "lauter.pipeline",
    "Network": "lauter.models",
    "RunOptions": "lauter.preparation",
    "TrainResult": "lauter.pipeline",
    "TrainedModel": "lauter.artefacts",
    "corrupt": "lauter.data",
    "create_network": "lauter.models",
    "distill": "lauter.pipeline",
    "evaluate": "lauter.scoring",
    "export_onnx": "lauter.artefacts",
    "fit": "lauter.pipeline",
    "load": "lauter.artefacts",
    "load_preset": "lauter.config",
    "open_dataset": "lauter.data",
    "report": "lauter.results",
    "train": "lauter.pipeline",
    "wrap_module": "lauter.models",
}

__all__ = [
    "Dataset",
    "DistillResult",
    "FitConfig",
    "FitResult",
    "Network",
    "RunOptions",
    "TrainResult",
    "TrainedModel",
    "__version__",
    "corrupt",
    "create_network",
    "distill",
    "evaluate",
    "export_onnx",
    "fit",
    "load",
    "load_preset",
    "open_dataset",
    "report",
    "train",
    "wrap_module",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: the command's help must not wait for torch."""
    if name not in _PUBLIC:
        raise AttributeError(f"module 'lauter' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
