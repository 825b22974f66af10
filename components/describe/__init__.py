"""The component `describe`."""
