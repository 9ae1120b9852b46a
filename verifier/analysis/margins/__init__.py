"""Margin consistency: what the logits say of the distance to the decision boundary, and what brackets prove of that.

Ngnawe et al., "Detecting Brittle Decisions for Free: Leveraging Margin Consistency in Deep Robust Classifiers", NeurIPS
2024 (arXiv 2406.18451).
"""
