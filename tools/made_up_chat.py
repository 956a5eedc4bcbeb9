"""Writes a made-up chat of two friends as WhatsApp exports it: the same every time, for docs/guide/my-chats.md and its
pictures.

    python -m tools.made_up_chat chat.txt [MESSAGES]

Finn writes in small letters, calls Maria "chief", is for tea and climbing, and says "fair enough..." where others say
yes. Maria writes complete sentences. Both send pictures, links and numbers; their messages are put together from parts,
so no exchange is a real one.
"""

from __future__ import annotations

import random
import sys
from datetime import datetime, timedelta
from pathlib import Path

PLACES = (
    "the lake",
    "the old harbour",
    "the climbing hall",
    "the market",
    "your place",
    "the cinema",
    "the station",
    "the park",
)
FOODS = ("dumplings", "lentil soup", "pancakes", "noodles", "that potato thing", "curry", "toast")
DAYS = ("tonight", "tomorrow", "on Friday", "on Saturday", "on Sunday", "next week")
OTHERS = ("Lena", "Tom", "my sister", "your brother", "Paul", "the neighbours")

# What Maria says; Finn's answers to it. {p}, {f}, {d}, {o} are filled alike on both sides.
TALKS: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("Shall we meet at {p} {d}?", "Are you free {d}? I thought of {p}.", "What do you think of {p} {d}?"),
     ("fair enough... {p} {d} it is, chief", "{d} works, chief. i bring tea...", ("{p} again? fair enough... but i "
                                                                                  "pick "
                                                                                  "the tea, chief"))),
    (("What should I cook {d}? I have everything for {f}.", "Do you want {f} {d}?", "I am making {f}. Are you hungry?"),
     ("{f}... chief you know me too well", "always hungry for {f}, chief. kettle is on...", ("{f}? fair enough... save "
                                                                                             "me two plates"))),
    (("How was climbing?", "Did you get up the blue route?", "How are your hands after the climbing hall?"),
     ("fell off the blue one twice... then tea, then got it, chief", "hands are gone... worth it though, chief",
         "blue route is done, chief... next one is red")),
    (("{o} asked about you. Should I say hello?", "I met {o} at {p}.", ("{o} wants to come along {d}. Is that all "
                                                                        "right?")),
     ("say hi to {o} from me, chief...", "{o}? fair enough... the more the merrier, chief", ("{o} still owes me a tea, "
                                                                                             "chief..."))),
    (("I am so tired of work. It never ends.", "My boss moved the meeting again.", ("I do not think I will finish this "
                                                                                    "today.")),
     ("tea first, chief... then the world", "leave it till tomorrow, chief... it will still be there",
         "sounds grim... come climbing, chief")),
    (("Are you late again?", "Where are you? I am at {p} already.", "The film starts in ten minutes!"),
     ("two minutes, chief... maybe ten", "on my way, chief... had to finish the tea", ("running, chief... well, "
                                                                                       "walking "
                                                                                       "fast"))),
    (("Happy birthday, you old goat!", "Thank you for the present!", "You were right about {p}."),
     ("thanks chief... feeling ancient, need tea", "anytime, chief...", "told you, chief... always trust the goat")),
    (("Which book should I read next?", "Can you recommend a series?", "What are you listening to?"),
     ("the one about the mountain, chief... cried on page nine", "anything with fog in it, chief...",
         "same three songs as always, chief... fair enough")),
    (("Can I borrow your bike {d}?", "Do you still have my umbrella?", "Could you bring the big pot {d}?"),
     ("take it, chief... brakes are a matter of faith", "somewhere under the ropes, chief...",
         "fair enough... if there is {f} in it, chief")),
)  # fmt: skip
BESIDES = (
    "<Media omitted>",
    "This message was deleted",
    "https://maps.example/route/{n}",
    "My new number is +49 170 55{n:05}, in case you need it.",
)


def made_up(count: int = 4_000, seed: int = 7) -> list[str]:
    """Return the lines of an Android export, of about count messages."""
    chance = random.Random(seed)
    now = datetime(2024, 1, 3, 9, 0)
    lines = [
        f"{now:%d/%m/%Y, %H:%M} - Messages and calls are end-to-end encrypted. Only people in this chat can read them."
    ]

    def say(person: str, text: str) -> None:
        nonlocal now
        now += timedelta(minutes=chance.randint(0, 3))
        lines.append(f"{now:%d/%m/%Y, %H:%M} - {person}: {text}")

    while len(lines) < count:
        later = now + timedelta(hours=chance.randint(2, 4))
        if later.hour > 22 or later.hour < 8 or chance.random() < 0.7:  # another day, else later that day
            later = (now + timedelta(days=chance.choice((1, 1, 1, 2, 4)))).replace(
                hour=chance.randint(8, 17), minute=chance.randint(0, 59)
            )
        now = later
        for question, answered in chance.sample(TALKS, chance.randint(2, 4)):
            filled = {
                "p": chance.choice(PLACES),
                "f": chance.choice(FOODS),
                "d": chance.choice(DAYS),
                "o": chance.choice(OTHERS),
            }
            say("Maria Lopez", chance.choice(question).format(**filled))
            if chance.random() < 0.15:
                say("Maria Lopez", chance.choice(BESIDES).format(n=chance.randint(0, 99_999)))
            first, *more = chance.choice(answered).format(**filled).split("... ")
            say("Finn", first + "..." if more else first)
            for part in more:
                say("Finn", part)
    return lines


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(
        "\n".join(made_up(int(sys.argv[2]) if len(sys.argv) > 2 else 4_000)) + "\n", "utf-8", newline="\n"
    )
