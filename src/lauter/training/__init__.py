"""The one visible loop: stages, schedule, checkpoints, progress, and the one inference pass."""
