"""What any network does, seen from outside: around its calls of modules, at each operator, in the tensors of its batch."""
