"""Labelled scenes and the chips that models train on."""
