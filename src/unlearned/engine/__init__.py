"""Loops, gradients, fan-out and resume: what methods, audits and attacks share, written once."""
