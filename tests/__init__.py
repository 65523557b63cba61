"""The tests. They run on the CPU; ICNET_TEST_CUDA=1 lets those of tests/test_cuda.py see the GPUs."""

import os

if not os.environ.get("ICNET_TEST_CUDA"):
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch looks for them
