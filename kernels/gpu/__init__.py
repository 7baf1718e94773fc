"""Triton kernels. Only these files import Triton: an operator loads its own when it runs on a GPU or is interpreted."""
