"""Leases and a bus in Redis: one server, one behind Sentinel, or a Redis Cluster."""

from jivsd.cluster.redis.link import RedisLink

__all__ = ["RedisLink"]
