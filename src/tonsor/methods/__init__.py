"""Methods that prune while a model trains, and those of papers as they were published."""
