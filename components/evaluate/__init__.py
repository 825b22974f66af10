"""evaluate: measure one tuned model."""
