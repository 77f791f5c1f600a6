"""What may be removed as one piece."""
