"""One number for each removable piece."""
