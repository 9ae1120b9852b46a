"""Certified training: losses on the bounds that verification uses, with radii that adapt to every sample."""
