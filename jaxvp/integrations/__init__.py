"""jaxvp in the shape that other libraries know; nothing here computes."""
