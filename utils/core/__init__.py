"""What every room needs: errors, console, files, command line, the machine's record."""
