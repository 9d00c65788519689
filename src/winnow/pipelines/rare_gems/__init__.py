"""Rare gems (NeurIPS 2022)."""
