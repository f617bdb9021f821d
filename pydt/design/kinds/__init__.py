"""One module per kind of design: how its masks are drawn."""
