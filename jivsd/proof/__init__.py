"""Proofs that anyone can run: the demo, the bench, and the crash tests built of the same parts."""
