"""The attacks of tools/siege.py. Each module has `attack(rng, folder)`, which yields None for each case, or a line that
says what failed."""
