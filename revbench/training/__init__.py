"""Training of a model on real images: data, schedule, loop."""
