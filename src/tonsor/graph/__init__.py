"""Record one forward pass as an immutable graph of operators."""
