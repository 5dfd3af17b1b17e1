"""lauter: from doubtful labels to a small, good model."""

__version__ = "0.1.0"
