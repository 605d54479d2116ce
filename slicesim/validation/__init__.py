"""Published measurements that the laws of the tiers are held to, and how far off they are."""
