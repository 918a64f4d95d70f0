"""The records of every JSON file, and what is generated from them: schemas, units, columns, docs."""
