"""The machine beside the numbers: sensors, versions, power."""
