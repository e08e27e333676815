"""The interactive page: exact answers for one family of problems, live in a browser, held to the oracle's."""
