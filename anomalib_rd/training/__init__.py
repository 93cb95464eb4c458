"""Lightning: the module over the four networks, a run from config to record."""
