"""jaxvp in the shape that other libraries know; every fit here is one of `jaxvp.fit`."""
