"""Devices and how programs run on them."""

from celosia.sw.driver.device import Device
from celosia.sw.driver.opening import open_device
from celosia.sw.driver.result import Result

__all__ = ["Device", "Result", "open_device"]
