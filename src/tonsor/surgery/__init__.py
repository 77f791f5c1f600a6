"""Cut tensors, mend sizes, try before cutting, prove after."""
