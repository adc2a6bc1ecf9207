"""A report as a file: HTML, Markdown and PDF; each escapes every text in its own way."""
