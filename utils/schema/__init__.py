"""The records of every JSON file, and the schemas, units, columns and pages made from them."""
