"""One module per estimator of influences."""
