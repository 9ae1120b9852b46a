"""Pictures of relaxations in two dimensions; `verifier.analysis.pictures.view` makes them."""
