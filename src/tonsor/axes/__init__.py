"""Give every dimension of every recorded tensor an axis."""
