"""Pictures and videos in, label maps and pictures out: what only inference.py needs."""
