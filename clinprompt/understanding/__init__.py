"""What a tuned model looks at, what moved in its feature space, and what it took from a language model."""
