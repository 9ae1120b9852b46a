"""Linear programs over the relaxed network: solvers propose dual points, the dual function says what they are worth."""
