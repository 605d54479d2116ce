"""Quality: proxies from decisions."""

from slicesim.quality.proxy import GateMass

__all__ = ["GateMass"]
