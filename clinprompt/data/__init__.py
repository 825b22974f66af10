"""From a dataset card and a folder of files to a manifest: cards, readers, splits, support sets and pixels."""
