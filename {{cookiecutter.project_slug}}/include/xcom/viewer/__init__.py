"""The payload viewer: pages within Airflow's UI that show what a task handed on.

``plugins/payload_viewer.py`` names them to Airflow; nothing here is imported before the first
request. How a page is made::

    app         who asks, for which XCom, may they?     Airflow's auth manager
      places    how many at a time                       the others wait a little, or come back
      journal   one line of the log for each view        who, which XCom, how many bytes, how it ended
    rows        the rows of the metadata database
    ranged      ranges of a stored object                its own XCom's; allow-list and stores of tasks
    inspector   starts a process for one payload         limits: time, memory, bytes, number
      child       reads ranges through its pipe, and asks the payload's codec to summarize it
        frame, array, tree, blob, bundle: what the codecs say, as plain JSON
    pages       HTML of that description, everything escaped

A payload is hostile until proven otherwise. It is decoded in a process of its own that is given no
settings and nothing but ranges of the one object, and has limits of memory and time: if a library
falls over broken bytes, that process ends, and the API server says so. This protects from crashes
and from size. It is no wall against code: the process runs as the same user as the API server.
"""
