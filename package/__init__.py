"""The XCom backend of cookiecutter-astro-gcs-xcom, installed as a package.

What a generated project imports from ``include`` is here under ``gcs_xcom``. Rows and objects are the
same: what one form has stored, the other loads.
"""
