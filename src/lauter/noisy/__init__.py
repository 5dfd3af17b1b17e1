"""Learning from noisy labels: pretraining, warm-up, beliefs, filtering, correction, and the recipe of them."""
