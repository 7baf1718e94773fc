"""Weights and products in fewer bits: what is measured of a model first, and what is then left as it was."""
