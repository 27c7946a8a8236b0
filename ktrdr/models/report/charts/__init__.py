"""The charts of a report; each function returns figures and knows nothing of the page."""
