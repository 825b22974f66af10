"""report: one HTML file that shows the data, the candidates and the decision."""
