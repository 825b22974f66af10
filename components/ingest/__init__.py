"""ingest: read a dataset's files into a manifest and content-addressed images."""
