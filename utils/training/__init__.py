"""The training loop, its state, and its logs; used by train.py only."""
