"""A ticket to share: a folder with mask, masked weights in the framework's own format, a card, and a statement that can
be checked.
"""
