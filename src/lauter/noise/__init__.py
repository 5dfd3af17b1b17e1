"""Corruptions of labels and images, drawn from numpy Generators, and the nCIFAR recipes made of them."""

from lauter.noise.confusions import Confusions, ImageRows, learn_confusions
from lauter.noise.labels import flip_by_instance, flip_by_map, flip_by_matrix, flip_pairs, flip_symmetric
from lauter.noise.long_tail import count_long_tail, long_tail_index
from lauter.noise.open_set import choose_open, find_candidates
from lauter.noise.recipes import RECIPES, Corruption, NoiseRecipe, apply_recipe, check_inputs, find_recipe
from lauter.noise.seeding import step_generator
from lauter.noise.transition import check_transition_matrix, noise_kinds, transition_matrix

__all__ = [
    "RECIPES",
    "Confusions",
    "Corruption",
    "ImageRows",
    "NoiseRecipe",
    "apply_recipe",
    "check_inputs",
    "check_transition_matrix",
    "choose_open",
    "count_long_tail",
    "find_candidates",
    "find_recipe",
    "flip_by_instance",
    "flip_by_map",
    "flip_by_matrix",
    "flip_pairs",
    "flip_symmetric",
    "learn_confusions",
    "long_tail_index",
    "noise_kinds",
    "step_generator",
    "transition_matrix",
]
