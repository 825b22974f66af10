"""What a language model says: descriptions of each class, paraphrases of reports, their checks, and hidden states."""
