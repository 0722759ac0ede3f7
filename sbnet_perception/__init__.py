"""Vehicle detection in LiDAR that computes only where the mask says so (SBNet, CVPR 2018)."""

__version__ = "0.1.0"
