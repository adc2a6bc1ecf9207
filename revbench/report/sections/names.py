"""The names of tables that others refer to."""

TIME = "time-and-operations"
MEMORY = "peak-memory"
DEPTH = "memory-against-depth"
VERDICTS = "verdicts-on-the-gradient"
CAUSES = "what-blocks-do-to-an-error"
EQUIVALENCE = "same-error"
ERRORS = "classification-errors"
