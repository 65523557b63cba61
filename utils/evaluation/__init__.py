"""A measurement of a whole split, and what it leaves on the disk: what only evaluate.py needs."""
