"""A statistical twin of recorded routing: fitted to a trace, it makes new tokens that route alike, with full logits."""
