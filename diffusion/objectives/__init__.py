"""Training objectives: (params, batch, draws) to a scalar and its metrics."""
