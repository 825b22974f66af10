"""Tables and figures of experiments' results, with the published numbers beside them."""
