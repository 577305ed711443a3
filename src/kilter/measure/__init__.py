"""Instruments that look without training."""
