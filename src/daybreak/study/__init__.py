"""Studies: which change helped, at equal budget, over several seeds, and how sure that is."""
