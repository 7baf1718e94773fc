"""Engines are built here: from weights and a recipe to a checked, signed package."""
