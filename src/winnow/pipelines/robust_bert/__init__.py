"""Robust tickets for pre-trained language models (ACL 2022)."""
