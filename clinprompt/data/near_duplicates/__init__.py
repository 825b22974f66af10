"""Images that show the same picture, though their bytes differ: fingerprints, a search, and a check by registration."""
