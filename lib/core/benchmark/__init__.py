"""The open benchmark: landmarks, networks and fit on the same repaired input, measured side by side.

Every row (:class:`~.videos.Estimate`) is measured on the twelve limb joints that landmarks and meshes share;
rows that are bodies also by their vertices and by what their feet do on the true floor. Several checkpoints
of one name are seeds: a row is their mean. Intervals and differences are bootstrapped over motions, of which
a database holds several pieces or views.

``videos`` → ``methods`` (estimates) → ``measures`` → ``comparison`` (all rows of a database) → ``tables``,
``plots``.
"""
