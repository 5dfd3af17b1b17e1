"""Losses as pure functions: tensors in, one value per example [B] out; import the module by name."""
