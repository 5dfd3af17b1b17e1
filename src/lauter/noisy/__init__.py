"""Noisy labels: pretraining, warm-up, beliefs, filtering, correction, and the recipe made of them."""
