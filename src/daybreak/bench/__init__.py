"""How fast a recipe trains on this machine, in how much memory, and what each optimisation is worth."""
