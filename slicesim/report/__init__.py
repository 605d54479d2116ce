"""Tables, plots, files."""
