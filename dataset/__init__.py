"""Datasets, labels and augmentation; independent of networks, devices and configuration files."""
