"""What each command does, apart from its arguments: functions that return facts and a view of them."""
