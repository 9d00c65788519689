"""Double-win tickets (ICML 2022)."""
