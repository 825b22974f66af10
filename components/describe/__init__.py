"""describe: what a language model says of the classes."""
