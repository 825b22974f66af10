"""What descriptions of one class say beside each other: near-duplicates, support among samples, contradictions."""
