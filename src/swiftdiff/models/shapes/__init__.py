"""The embedded family `shapes`: its architecture and the recipe that trained the shipped weights."""
