"""The papers' tables from evaluation files: tidy, one row a comparison, means and standard deviations over seeds."""
