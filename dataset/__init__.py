"""Datasets, labels and augmentations; nothing here knows of networks, devices or configuration files."""
