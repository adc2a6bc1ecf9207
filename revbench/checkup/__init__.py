"""Every fault known to the field, looked for in anybody's network: what is right, what is wrong, what it means."""
