"""Run time: device agent, sessions with devices, pipeline executor. Needs nothing of the compile side."""
