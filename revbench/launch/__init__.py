"""What commands start: measurements of models, and trainings with their request, their board and torchrun's processes."""
