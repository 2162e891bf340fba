"""A run's log as a picture: one layout of lanes, drawn as SVG and as text."""
