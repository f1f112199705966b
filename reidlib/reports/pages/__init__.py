"""The pages of a report.

``index``      all notebooks, and how far they are
``page``       one executed notebook
``summary``    what is kept in git: claims, tables and marked figures
``templates``  their HTML, CSS and Markdown
"""
