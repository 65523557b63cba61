"""Inference: opening a trained network, predicting label maps, and the loop of inference.py."""
