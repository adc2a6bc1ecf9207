"""What stands behind the pytest plugin: its options, the redirect to the built-in suites, fixture and display."""
