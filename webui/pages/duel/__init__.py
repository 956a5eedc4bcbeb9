"""The blind A/B test, below the chat: `contenders` chooses the models, `blind_duel` shows answers and takes votes.
Imports: what webui/pages may, and its chat_choices."""
