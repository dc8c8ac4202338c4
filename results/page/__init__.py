"""What a report page holds, and the files that it is made of."""
