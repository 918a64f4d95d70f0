"""Small random classifiers of every architecture, to compare the program's results with."""
