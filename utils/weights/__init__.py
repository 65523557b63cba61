"""Weights on disk: checkpoints, the layouts of other projects, published weights, and run folders."""
