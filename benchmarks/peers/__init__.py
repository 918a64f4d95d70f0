"""The evaluator and its peers: who runs, what the machine's limit is, where the time goes."""
