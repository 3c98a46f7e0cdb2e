"""What a budget buys, before it is spent; and which model a budget is best spent on."""
