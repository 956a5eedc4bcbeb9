"""The command line: `python launch.py COMMAND` is `python -m core.commands COMMAND`. No other room imports this one.

Imports: every room but engine and training, which the processes that a command starts import. To add a command: a
function with `@app.command()` in the file of its topic (a new file: name it in `__main__`), its name in
launcher/main.py's COMMANDS, a line in docs/commands.md.
"""
