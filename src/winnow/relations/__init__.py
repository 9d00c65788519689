"""How tickets, and the networks trained under them, relate to one another."""
