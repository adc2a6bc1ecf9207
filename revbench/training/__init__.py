"""Training of a model on real images or text, or on what a factory draws: data, schedule, loop."""
