"""Is this dataset fit for training? Image summaries, duplicates, leaks, a Great Expectations suite and a verdict."""
