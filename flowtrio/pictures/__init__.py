"""A run's log as a picture: lanes laid out and drawn as SVG, and lines of text for a terminal."""
