"""Samples and where they come from, without regard to what they show."""
