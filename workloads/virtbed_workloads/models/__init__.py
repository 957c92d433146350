"""The networks in Keras, with backend-neutral operations, and the readers of their weights.

The application modules use them; they know no requests and no answers.
"""
