"""`python -m jivsd.proof.million`: what a daemon with a million ended runs is like to its users, over HTTP.

A database is filled in bulk, a real daemon is started over it, gets some thousands of runs that wait, and is asked all
that its dashboard and its API can be asked. Then new runs are done beside the old ones, in turns with an empty
database; and a part of the old ones is removed while runs go on.

Wall time says little on a machine that has other things to do: beside it stands the time that the processors worked
for an answer, of the daemon and of the database server.
"""
