"""The parts of ``report.html``: cards, warnings, tables and pictures, each a small builder."""
