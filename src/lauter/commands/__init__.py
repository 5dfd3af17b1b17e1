"""The command line: one thin file for each verb."""

COMMANDS = {
    "fit": "the whole way: doubtful labels in, a small model and a checked label table out",
    "audit": "which labels are wrong, how sure that is, and what a person should look at",
    "apply": "merge a person's decisions into the label table of an audit",
    "train": "judge the labels and train one network in spite of them",
    "distill": "a small student that mimics a finished teacher",
    "doctor": "examine a teacher before a long run",
    "evaluate": "score a saved model on labelled images",
    "predict": "a table of class and probability for images",
    "corrupt": "write a copy of a data set with known label noise",
    "export": "write a saved model as ONNX, checked against PyTorch",
    "report": "write the report of a finished run again",
    "demo": "the whole way on scikit-learn's digits, in two minutes",
    "bench": "run the measurements of the docs and render their tables",
}
"""Verb -> one line of help. The verb's code is ``lauter.commands.VERB`` with a function ``main(argv)``."""
