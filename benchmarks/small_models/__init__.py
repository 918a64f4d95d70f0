"""Small random classifiers of every architecture, and the program's answers compared with theirs."""
