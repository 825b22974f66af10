"""What people decide on descriptions: the list that they are asked about, and their decisions, which come first."""
