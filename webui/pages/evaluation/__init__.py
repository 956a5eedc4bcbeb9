"""The parts of the Evaluate page: `chooser` draws the choices and the judge, `answers` the table of questions and
contestants. Imports: what webui/pages may, and its chat_choices."""
