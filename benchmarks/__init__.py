"""Speed, each number against a named reference, re-runnable: `python -m benchmarks.<name>`."""
