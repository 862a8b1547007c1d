"""The payload viewer: pages within Airflow's UI that show what a task handed on.

``plugins/payload_viewer.py`` names them to Airflow; nothing here is imported before the first
request. How a page is made::

    app         who asks, for which XCom, may they?     Airflow's auth manager, one log line
    rows        the rows of the metadata database
    ranged      ranges of a stored object                same allow-list and stores as in tasks
    inspector   starts a process for one payload         limits: time, memory, bytes, number
      child       reads ranges through its pipe, and asks the payload's codec to summarize it
        frame, array, tree, blob, bundle: what the codecs say, as plain JSON
    pages       HTML of that description, everything escaped

A payload is hostile until proven otherwise. It is decoded in a process of its own that has no
credentials or settings, is given nothing but ranges of the one object, and has a limit of memory: if
a library falls over broken bytes, that process ends, and the API server says so.
"""
