"""How much each block of a model matters."""
