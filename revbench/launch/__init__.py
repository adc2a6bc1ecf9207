"""What starts trainings: the request, the command with its board, and torchrun's processes."""
