"""Gomez et al. 2017 as data: its networks, how it trains them, and the numbers that it prints; no torch is imported here."""
