"""What a candidate is worth: metrics with intervals, slices, plots, and the gate that decides."""
