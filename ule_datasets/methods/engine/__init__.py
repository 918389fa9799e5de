"""What gradient methods share: one life cycle (``stepwise``), surrogates, sign steps, generators, clusters, moments.

Methods must import without torch, so that recipes and the command line do. Modules here name it by a stand-in (see
``ule_datasets.base.lazy``); the one with networks needs it, and methods name that by a stand-in.
"""
