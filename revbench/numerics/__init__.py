"""What an arithmetic does to a gradient: its two parts, smooth rounding and flips, and where they come from."""
