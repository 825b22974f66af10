"""What a language model says about each class: descriptions, the checks that accept them, and hidden states."""
