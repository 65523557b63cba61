"""Everything between the scripts and the network: configuration, training, evaluation, files in and out."""
