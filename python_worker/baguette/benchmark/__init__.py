"""How fast this machine draws, in what memory, and what each optimisation is worth."""
