"""The engine: the pure core and its policy, and the shell around it: worker, replay, commands."""
