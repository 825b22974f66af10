"""From a dataset card and a folder of files to a manifest: cards, layouts, codecs, splits and support sets."""
