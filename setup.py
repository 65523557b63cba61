"""Tells whoever runs `pip install .` that this project is not a package."""

raise SystemExit("ICNet is not a pip package, it runs from its clone: see Installation in README.md")
