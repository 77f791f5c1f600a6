"""SPP, structured probabilistic pruning: pieces go with a probability that may fall again."""
