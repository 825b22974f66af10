"""tune: tune one candidate with one seed."""
