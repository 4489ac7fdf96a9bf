from greetings import greet

print(greet("world"))
