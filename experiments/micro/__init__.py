"""Parts of train_micro.py: text, geometry, experts computed in batches, figures."""
