"""Faults put into real processes, and the proof that nothing of what was promised broke."""
