"""transfer: the tuned candidates of one dataset, tested on another."""
