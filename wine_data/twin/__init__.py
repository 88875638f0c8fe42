"""The synthetic twin: wines that are drawn where no data can be had."""
