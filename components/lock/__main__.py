"""lock: write down what the stages depend on beside files, by digest."""
