"""Where rows are computed: processes of this machine, Ray, Slurm.

An executor has `submit` and `shutdown` of `concurrent.futures` and computes `call.work`. A node of Ray or Slurm runs
the same worker processes as this machine (`local.Processes`), so watchdog, death of a worker and bytes of a row are the
same everywhere; what a cluster loses comes back as `WorkerDied`, and the driver tries the row again. Runner and context
travel once (`parcel`), data sets as paths and digests, and as copies only to nodes that do not see the files.
"""
