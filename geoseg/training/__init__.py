"""Training: steps, losses, checkpoints, validation, and what a run leaves behind."""
