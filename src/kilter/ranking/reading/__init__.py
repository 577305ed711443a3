"""Reads comparisons and rankings from files, frames and lists: their own engine groups, and only counts come back."""
