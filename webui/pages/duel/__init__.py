"""The blind test of two models, below the chat: `contenders` says who they are, `blind_duel` shows their answers and takes the votes, `judge_panel` asks a judge.
Imports: what webui/pages may, and its chat_choices."""
