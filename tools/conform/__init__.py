"""Other libraries' test cases on nbnet's functional calls: see tools/conformance.py."""
