"""Our operators in the modules of each model family, swapped in by name and shape."""
