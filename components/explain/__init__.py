"""explain: pictures of what a tuned model looks at, what tuning moved, and what it was taught."""
