"""One module per container of images; each gives the fields of a Dataset."""
