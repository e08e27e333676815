"""The audit: the conformance suite run on the estimators of other libraries, each through its own code."""
