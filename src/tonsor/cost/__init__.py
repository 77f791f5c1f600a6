"""What a model costs before and after any plan, counted from the recorded run alone."""
