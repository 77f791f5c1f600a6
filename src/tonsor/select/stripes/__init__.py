"""Plans that remove stripes."""
