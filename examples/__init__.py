"""Short programs; each runs alone: `python examples/NAME.py`. This file makes them a package for the type checker only."""
