"""Knowledge of a language model about each class: descriptions, the checks that accept them, and hidden states."""
