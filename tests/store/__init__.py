"""Tests of the stores: a conformance suite for all, and each store's own."""
