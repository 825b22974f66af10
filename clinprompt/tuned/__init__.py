"""A tuned model: its files, its knobs, and the method built again from them."""
