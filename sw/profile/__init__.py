"""An inference looked at by layer and by command: what analysis, reports and timelines draw on."""
