"""Operators: a plain-torch truth, and a Triton twin of each.

The name is also that of a Hugging Face package which transformers and diffusers look for, so this file does nothing and
has no version.
"""
