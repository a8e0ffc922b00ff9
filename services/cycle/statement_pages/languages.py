"""The languages of a page, and its words in each. What a locale knows (numbers, dates, currencies) is not here."""

from collections.abc import Mapping
from enum import StrEnum

from services.cycle.statement_pages.words_en import WORDS as ENGLISH
from services.cycle.statement_pages.words_pt_br import WORDS as BRAZILIAN


class Language(StrEnum):
    """A language by its tag (BCP 47), as `lang` and `Accept-Language` write it."""

    PT_BR = "pt-BR"
    EN = "en"

    @property
    def locale(self) -> str:
        """Whose numbers and dates it uses. English is the world's, not one country's: 30 November 2026, US$5.00."""
        return {Language.PT_BR: "pt_BR", Language.EN: "en_001"}[self]


WORDS: Mapping[Language, Mapping[str, str]] = {Language.PT_BR: BRAZILIAN, Language.EN: ENGLISH}


def words(language: Language, key: str, **values: object) -> str:
    """A word or sentence of ours, with values in it.

    >>> words(Language.EN, "title", number=12)
    'Statement no. 12'
    """
    return WORDS[language][key].format(**values)


def word_for(language: Language, group: str, name: str) -> str:
    """The word for a name that others may have made up (a unit, a source): as it stands where we have none.

    >>> word_for(Language.PT_BR, "unit", "second"), word_for(Language.PT_BR, "unit", "parsec")
    ('segundos', 'parsec')
    """
    return WORDS[language].get(f"{group}.{name}", name)
