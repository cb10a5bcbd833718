"""Names of emoji in plain English, with the article they take."""

import re

# What the rules below would get wrong, by the names emojilib gives, with spaces for underscores.
_BETTER_NAMES = {
    "t shirt": "T-shirt",
    "t rex": "tyrannosaurus",
    "x ray": "X-ray",
    "foggy": "city in fog",
    "dvd": "DVD",
    "e mail": "e-mail",
    "pool 8 ball": "pool ball",
    "jack o lantern": "jack-o'-lantern",
    "two hump camel": "two-humped camel",
    "front facing baby chick": "baby chick from the front",
    "globe showing europe africa": "globe showing Europe and Africa",
    "globe showing asia australia": "globe showing Asia and Australia",
    "globe showing americas": "globe showing the Americas",
    "mount fuji": "Mount Fuji",
    "tokyo tower": "Tokyo Tower",
    "statue of liberty": "Statue of Liberty",
    "map of japan": "map of Japan",
    "japanese castle": "Japanese castle",
    "japanese dolls": "Japanese dolls",
    "japanese post office": "Japanese post office",
    "hindu temple": "Hindu temple",
    "christmas tree": "Christmas tree",
    "kaaba": "Kaaba",
    "milky way": "Milky Way",
    "optical disk": "CD",
    "magnifying glass tilted left": "magnifying glass",
    "magnifying glass tilted right": "magnifying glass tilted to the right",
    "direct hit": "target with an arrow",
    "locked": "padlock",
    "unlocked": "open padlock",
    "locked with key": "padlock with a key",
    "locked with pen": "padlock with a pen",
    "performing arts": "theatre masks",
    "tennis": "tennis ball",
    "bowling": "bowling ball with pins",
    "ping pong": "table tennis bat",
    "badminton": "badminton racket with a shuttlecock",
    "camping": "tent in the woods",
    "cooking": "pan with a fried egg",
    "construction": "road barrier",
    "herb": "green herb",
    "thread": "spool of thread",
    "yarn": "ball of yarn",
    "yo yo": "yo-yo",
    "dna": "DNA strand",
    "american football": "American football",
    "hourglass done": "hourglass",
    "hourglass not done": "hourglass with flowing sand",
    "luggage": "suitcase",
    "headphone": "headphones",
    "high voltage": "lightning bolt",
    "wedding": "wedding chapel",
    "building construction": "building under construction",
    "airplane departure": "airplane taking off",
    "airplane arrival": "airplane landing",
    "baguette bread": "baguette",
    "mahjong red dragon": "mahjong tile",
    "speaker low volume": "speaker with low volume",
    "speaker medium volume": "speaker with medium volume",
    "speaker high volume": "speaker with high volume",
    "flower playing cards": "flower playing card",
}
_CLOCK = re.compile(r"(\w+) (o clock|thirty)")
_HEAD_ENDS = re.compile(
    r" (?:with|of|on|in|at|and|behind|over|from|for|showing|fluttering|facing|tilted)(?: |$)",
)
# Nouns that take no article though they are singular.
_WITHOUT_ARTICLE = frozenset(
    {
        *(
            "bacon",
            "bread",
            "broccoli",
            "butter",
            "cricket game",
            "coral",
            "custard",
            "dango",
            "fire",
            "fog",
        ),
        *("food", "garlic", "ginger root", "hockey", "ice", "lacrosse", "mate", "oden", "popcorn", "rice", "sake"),
        *("salt", "shrimp", "soap", "spaghetti", "sushi", "tea", "wood", "money", "liquid", "corn", "meat", "art"),
        *("Mount Fuji", "Tokyo Tower"),
    }
)
_WITH_THE = frozenset({"Statue of Liberty", "Milky Way", "Kaaba", "sun", "sun with face"})
_SOUNDS_LIKE_A_CONSONANT = ("uni", "uti", "euro", "ewe", "one", "u-")
_SOUNDS_LIKE_A_VOWEL = ("hour", "x-ray", "8")
_SINGULAR_ENDINGS = ("ss", "us", "is", "os")
_PLURALS_ALL_THE_SAME = frozenset({"skis"})


def plain_name(written: str) -> str:
    """`woman_s_hat` becomes `woman's hat`, `one_o_clock` `clock at one o'clock`."""
    name = " ".join(written.replace("_", " ").split())
    clock = _CLOCK.fullmatch(name)
    if clock:
        return f"clock at {clock[1]} o'clock" if clock[2] == "o clock" else f"clock at half past {clock[1]}"
    return _BETTER_NAMES.get(name, name.replace(" s ", "'s "))


def with_article(name: str) -> str:
    """A name as it stands in a sentence: `a car`, `an owl`, `grapes`, `the sun`."""
    if name in _WITH_THE:
        return f"the {name}"
    head = _HEAD_ENDS.split(name)[0]
    noun = head.split(" ")[-1]
    is_plural = noun in _PLURALS_ALL_THE_SAME or (noun.endswith("s") and not noun.endswith(_SINGULAR_ENDINGS))
    if is_plural or head in _WITHOUT_ARTICLE or noun in _WITHOUT_ARTICLE:
        return name
    return f"{article(name)} {name}"


def article(following: str) -> str:
    """`a` or `an`, by the sound of what follows."""
    first = following.lower()
    if first.startswith(_SOUNDS_LIKE_A_CONSONANT):
        return "a"
    return "an" if first.startswith(("a", "e", "i", "o", "u", *_SOUNDS_LIKE_A_VOWEL)) else "a"
