"""Where data sets come from: class folders, tables, Hugging Face data sets and the embedded digits."""
