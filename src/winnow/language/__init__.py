"""Language models: running text word by word, networks that foretell the next word, and how well they do."""
