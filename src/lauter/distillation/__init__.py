"""Feature mimicking: a student that copies the teacher's penultimate features."""
