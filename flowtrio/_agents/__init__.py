"""What happens inside a run: tools, calls, model turns, agents."""
