"""Reports and progress of a folder's sweeps, in the browser of this machine."""

from anomalib_rd.reports.server.http import DashboardServer

__all__ = ["DashboardServer"]
