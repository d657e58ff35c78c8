"""The proof of locks: runs on few keys write when they enter and when they leave, while daemons are killed.

`python -m jivsd.proof.locking --runs 10000 --keys 10 --nodes 3` on a private PostgreSQL server (and a private Redis
server), or on the database of `--store`.
"""
