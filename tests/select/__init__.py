"""Selection: what is asked for, how pieces are ranked, and what goes."""
