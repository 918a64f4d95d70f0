"""Text, tables, pictures and pages made from result files alone, without PyTorch."""
