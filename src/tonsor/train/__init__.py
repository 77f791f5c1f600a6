"""Training a pruned model back to accuracy."""
