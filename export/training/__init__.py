"""Models trained here: data, losses and stages -> checkpoints in the official formats."""
