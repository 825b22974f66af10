"""One training loop for all methods that descend a gradient: batches, schedule, checkpoints."""
