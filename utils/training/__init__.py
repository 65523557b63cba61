"""A training run, from its first iteration to its last: what only train.py needs."""
