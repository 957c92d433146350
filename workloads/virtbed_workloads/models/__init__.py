"""The networks, in Keras with backend-neutral operations, and the readers of their weights."""
