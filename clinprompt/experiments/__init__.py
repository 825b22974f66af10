"""Experiments on one dataset and one method: protocols, their cells, the results and the tables made of them."""
