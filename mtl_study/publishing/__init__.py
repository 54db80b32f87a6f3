"""The one command, pages and report, and what is generated for the documentation."""
