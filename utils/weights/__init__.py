"""Weights on the disk: checkpoints, the layouts of others, known weights, the folder of a run."""
