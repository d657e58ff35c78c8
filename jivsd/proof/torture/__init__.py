"""`jivsd torture`: random workflows against a model, while the daemon is killed.

`language` is what programs are written in, `programs` draws them from a seed, `model` says what each must come to,
`workflows` is the plugin that interprets them, `driver` starts them and sends their messages, `faults` kills the
daemon, `evidence` and `checks` compare the databases with the model, `planted` has bugs that must be found.
"""
