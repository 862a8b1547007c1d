"""The payload viewer: pages in Airflow's UI that show what is behind a reference.

``plugins/payload_viewer.py`` registers them with Airflow, which imports this package at the first request::

    app           permission, routes; ids from the path, answers with their headers
      views       a few views at a time, one line of the log for each
    rows, history rows of the metadata database; one XCom over its runs
    sources       the bytes of a stored object, and what was checked of them
    inspector     starts a child process for one payload, with limits of time, memory, and bytes
      child       asks for ranges through a pipe, and describes the payload as plain JSON
        describe  which function does it for which codec: frames, arrays, trees, blobs, files, items
    pages         HTML of that description, with charts; everything is escaped

A payload is hostile until proven otherwise. The child process is given no settings and nothing but ranges
of the one object. If a library crashes over broken bytes, that process ends, and the page says so. This
protects the API server from crashes and large values. It is not a sandbox: the child runs as the same user.
"""
