"""What a browser gets: markup, style and modules, without a build step."""
