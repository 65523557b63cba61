"""Files, pictures and videos, read and written."""
