"""The demonstration dataset, drawn from seeds, and the training of the small backbone demo-clip."""
