"""Runs tests.kit.bad_judges.answer_nothing."""

from tests.kit.bad_judges import answer_nothing

if __name__ == "__main__":
    answer_nothing()
