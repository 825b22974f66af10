"""attach: put the run's report beside the model that the run promoted."""
