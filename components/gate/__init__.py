"""gate: decide whether the best candidate may be promoted."""
