"""Evaluation of a network on a dataset split: the pass over the images, and the files written from it."""
