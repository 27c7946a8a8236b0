"""Other job systems on the same broker, each at its best safe setting: what this one is measured against."""
