"""What one can learn of a network and its relaxations beyond a verdict."""
