"""Grammar of the demo: a seed -> a sentence as a home assistant hears it, with the facts it carries.

Every sentence is lower case without punctuation. `sample_utterance` is deterministic in the random
generator it is given; `split_of` says, from the words alone, whether a sentence belongs to training
or is held out, so no seed can ever leak one into the other.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

from . import words
from .words import number_words, word_list

SLOT_NAMES = (
    "room", "device", "city", "time", "duration", "person", "item", "genre", "day", "event", "color", "task",
    "language", "place", "topic", "dish", "number",
)  # fmt: skip
HELD_OUT_PERCENT = 10
_FUNCTION_WORDS = frozenset(
    word_list(
        """
        a an the is are was am i me my you your it in on of to at for and or with from what who how do does please
        can could will be by this some there much many s have has out up off next when where we us that
        """
    )
)


@dataclass(frozen=True)
class Utterance:
    """One spoken sentence and what a listener should know after it."""

    text: str
    answer: str
    """The answer to the spoken question, or the confirmation of the spoken command."""
    slots: dict[str, str] = field(default_factory=dict[str, str])
    """Slot name -> the words of `text` that fill it."""

    @property
    def keywords(self) -> str:
        """The last three content words, in spoken order, separated by spaces."""
        return keywords_of(self.text)


def keywords_of(text: str) -> str:
    """The last three different words of `text` that are not function words, in spoken order."""
    content = [word for word in dict.fromkeys(text.split()) if word not in _FUNCTION_WORDS]
    return " ".join(content[-3:])


def split_of(text: str) -> str:
    """'held_out' for about one sentence in ten, by a hash of its words; 'train' for the others."""
    bucket = zlib.crc32(f"earshot demo {text}".encode()) % 100
    return "held_out" if bucket < HELD_OUT_PERCENT else "train"


def sample_utterance(rng: random.Random, split: str | None = None) -> Utterance:
    """Draw one sentence; with `split` ('train' or 'held_out'), draw until one belongs to it."""
    while True:
        utterance = rng.choices(_TEMPLATES, _WEIGHTS)[0](rng)
        if split is None or split_of(utterance.text) == split:
            return utterance


def vocabulary() -> frozenset[str]:
    """All distinct words the grammar can say, found by reading its lists and drawing from it."""
    rng = random.Random(0)
    drawn = {word for _ in range(20000) for word in sample_utterance(rng).text.split()}
    return frozenset(drawn)


def _switch(rng: random.Random) -> Utterance:
    room = rng.choice(words.ROOMS)
    device = rng.choice(words.DEVICES)
    state = rng.choice(("on", "off"))
    polite = rng.choice(("", "", "please ", "could you "))
    return Utterance(
        f"{polite}turn {state} the {room} {device}",
        f"turning {state} the {room} {device}",
        {"room": room, "device": device},
    )


def _switch_in(rng: random.Random) -> Utterance:
    room = rng.choice(words.ROOMS)
    device = rng.choice(words.DEVICES)
    verb, doing = rng.choice((("start", "starting"), ("stop", "stopping"), ("reset", "resetting"), ("dim", "dimming")))
    return Utterance(
        f"{verb} the {device} in the {room}", f"{doing} the {room} {device}", {"room": room, "device": device}
    )


def _opening(rng: random.Random) -> Utterance:
    room = rng.choice(words.ROOMS)
    device = rng.choice(words.OPENINGS)
    verb, doing = rng.choice((("open", "opening"), ("close", "closing"), ("lock", "locking"), ("unlock", "unlocking")))
    return Utterance(f"{verb} the {room} {device}", f"{doing} the {room} {device}", {"room": room, "device": device})


def _color(rng: random.Random) -> Utterance:
    room = rng.choice(words.ROOMS)
    color = rng.choice(words.COLORS)
    verb, doing = rng.choice((("make", "making"), ("set", "setting"), ("change", "changing")))
    preposition = "" if verb == "make" else "to "
    return Utterance(
        f"{verb} the {room} lights {preposition}{color}",
        f"{doing} the {room} lights {preposition}{color}",
        {"room": room, "color": color},
    )


def _percent(rng: random.Random) -> Utterance:
    room = rng.choice(words.ROOMS)
    level = number_words(5 * rng.randint(1, 19))
    device, unit = rng.choice((("lamp", "percent"), ("speaker", "percent"), ("heater", "degrees"), ("oven", "degrees")))
    return Utterance(
        f"set the {room} {device} to {level} {unit}",
        f"the {room} {device} is set to {level} {unit}",
        {"room": room, "device": device, "number": level},
    )


def _duration(rng: random.Random) -> str:
    unit = rng.choice(words.UNITS)
    value = rng.choice((*range(2, 21), 25, 30, 35, 40, 45, 50, 55, 90))
    return f"{number_words(value)} {unit}"


def _clock(rng: random.Random) -> str:
    hour = number_words(rng.randint(1, 12))
    minute = rng.choice(("", "", " fifteen", " thirty", " forty five", " twenty", " ten"))
    return f"{hour}{minute} {rng.choice(('in the morning', 'in the evening', 'at night', 'oclock'))}"


def _timer(rng: random.Random) -> Utterance:
    duration = _duration(rng)
    text = rng.choice(("set a timer for {}", "start a countdown of {}", "wake me in {}", "give me {} on the timer"))
    return Utterance(text.format(duration), f"timer set for {duration}", {"duration": duration})


def _dish_timer(rng: random.Random) -> Utterance:
    duration = _duration(rng)
    dish = rng.choice(words.DISHES)
    return Utterance(
        f"set a {dish} timer for {duration}",
        f"{dish} timer set for {duration}",
        {"duration": duration, "dish": dish},
    )


def _alarm(rng: random.Random) -> Utterance:
    time = _clock(rng)
    day = rng.choice(words.DAYS)
    text = rng.choice(("set an alarm for {time} on {day}", "wake me up on {day} at {time}"))
    return Utterance(text.format(time=time, day=day), f"alarm set for {day} at {time}", {"time": time, "day": day})


def _weather(rng: random.Random) -> Utterance:
    city = rng.choice(words.CITIES)
    day = rng.choice(words.TODAY)
    text = rng.choice(("what is the weather in {} {}", "how warm will it be in {} {}", "show the forecast for {} {}"))
    return Utterance(text.format(city, day), f"checking the weather in {city} {day}", {"city": city, "time": day})


def _sky(rng: random.Random) -> Utterance:
    city = rng.choice(words.CITIES)
    day = rng.choice(words.DAYS)
    sky = rng.choice(words.SKY)
    return Utterance(
        f"will there be {sky} in {city} on {day}",
        f"checking for {sky} in {city} on {day}",
        {"city": city, "day": day},
    )


def _music(rng: random.Random) -> Utterance:
    genre = rng.choice(words.GENRES)
    room = rng.choice(words.ROOMS)
    text = rng.choice(
        ("play some {} music in the {}", "i want to hear {} songs in the {}", "put on {} tunes in the {}")
    )
    return Utterance(text.format(genre, room), f"playing {genre} music in the {room}", {"genre": genre, "room": room})


def _band(rng: random.Random) -> Utterance:
    band = rng.choice(words.BANDS)
    kind = rng.choice(("the new album", "the best songs", "the first record", "a live concert", "a playlist"))
    return Utterance(f"play {kind} by {band}", f"playing {band}", {})


def _volume(rng: random.Random) -> Utterance:
    device = rng.choice(("music", "radio", "television", "speaker"))
    level = number_words(rng.randint(1, 20))
    way, doing = rng.choice((("raise", "raising"), ("lower", "lowering")))
    return Utterance(
        f"{way} the {device} volume by {level}", f"{doing} the {device} volume", {"device": device, "number": level}
    )


def _person(rng: random.Random) -> str:
    return rng.choice(words.PEOPLE) if rng.random() < 0.85 else rng.choice(words.RELATIVES)


def _call(rng: random.Random) -> Utterance:
    person = _person(rng)
    day = rng.choice(words.DAYS)
    text, reply = rng.choice(
        (
            ("call {p} on {d}", "i will call {p} on {d}"),
            ("make a video call to {p} on {d}", "video call with {p} on {d}"),
            ("ask {p} to visit us on {d}", "asking {p} to visit on {d}"),
            ("tell {p} that i am late on {d}", "telling {p}"),
        )
    )
    return Utterance(text.format(p=person, d=day), reply.format(p=person, d=day), {"person": person, "day": day})


def _two_people(rng: random.Random) -> Utterance:
    first, second = rng.sample(words.PEOPLE, 2)
    text, reply = rng.choice(
        (
            ("send a message to {} and {}", "sending a message to {} and {}"),
            ("invite {} and {} for dinner", "inviting {} and {}"),
            ("call {} and then {}", "calling {} and {}"),
            ("share the photos with {} and {}", "sharing photos with {} and {}"),
        )
    )
    return Utterance(text.format(first, second), reply.format(first, second), {})


def _remind(rng: random.Random) -> Utterance:
    task = rng.choice(words.TASKS)
    if rng.random() < 0.5:
        duration = _duration(rng)
        return Utterance(
            f"remind me to {task} in {duration}",
            f"i will remind you in {duration}",
            {"task": task, "duration": duration},
        )
    day = rng.choice(words.DAYS)
    return Utterance(f"remind me to {task} on {day}", f"i will remind you on {day}", {"task": task, "day": day})


def _calendar(rng: random.Random) -> Utterance:
    event = rng.choice(words.EVENTS)
    person = rng.choice(words.PEOPLE)
    time = _clock(rng)
    verb, done = rng.choice((("schedule", "scheduled"), ("cancel", "canceled"), ("move", "moved")))
    preposition = "to" if verb == "move" else "at"
    return Utterance(
        f"{verb} the {event} with {person} {preposition} {time}",
        f"{event} with {person} {done}",
        {"event": event, "person": person, "time": time},
    )


def _date(rng: random.Random) -> Utterance:
    event = rng.choice(words.EVENTS)
    month = rng.choice(words.MONTHS)
    day = number_words(rng.randint(1, 31))
    return Utterance(
        f"add a {event} on {month} {day}", f"{event} added on {month} {day}", {"event": event, "number": day}
    )


def _shopping(rng: random.Random) -> Utterance:
    count = number_words(rng.randint(2, 30))
    item = rng.choice(words.ITEMS)
    return Utterance(
        f"add {count} {item} to my shopping list", f"adding {count} {item}", {"item": item, "number": count}
    )


def _buy(rng: random.Random) -> Utterance:
    item, other = rng.sample(words.GOODS, 2)
    text = rng.choice(("we need {} and {} from the store", "put {} and {} on the list", "order some {} and {}"))
    return Utterance(text.format(item, other), f"adding {item} and {other}", {"item": item})


def _navigate(rng: random.Random) -> Utterance:
    place = rng.choice(words.PLACES)
    vehicle = rng.choice(words.VEHICLES)
    city = rng.choice(words.CITIES)
    text, reply = rng.choice(
        (
            ("how do i get to the {p} in {c} by {v}", "finding the way to the {p} in {c}"),
            ("find a {p} near {c}", "searching for a {p} near {c}"),
            ("is the {p} in {c} open today", "checking the {p} in {c}"),
        )
    )
    fill = {"p": place, "c": city, "v": vehicle}
    return Utterance(text.format(**fill), reply.format(**fill), {"place": place, "city": city})


def _translate(rng: random.Random) -> Utterance:
    phrase = rng.choice(words.PHRASES)
    language = rng.choice(words.LANGUAGES)
    return Utterance(
        f"how do you say {phrase} in {language}",
        f"translating {phrase} to {language}",
        {"language": language},
    )


def _recipe(rng: random.Random) -> Utterance:
    dish = rng.choice(words.DISHES)
    item = rng.choice(words.ITEMS + words.GOODS)
    return Utterance(
        f"find a recipe for {dish} with {item}", f"searching for {dish} with {item}", {"dish": dish, "item": item}
    )


def _news(rng: random.Random) -> Utterance:
    topic = rng.choice(words.TOPICS)
    city = rng.choice(words.CITIES)
    return Utterance(
        f"read me the {topic} news from {city}", f"here is the {topic} news from {city}", {"topic": topic, "city": city}
    )


def _sum(rng: random.Random) -> Utterance:
    word = rng.choice(("plus", "minus", "times"))
    if word == "times":
        a = rng.randint(1, 10)
        b = rng.randint(1, 10)
        value = a * b
    else:
        a = rng.randint(0, 20)
        b = rng.randint(0, 20)
        a, b = (max(a, b), min(a, b)) if word == "minus" else (a, b)
        value = a + b if word == "plus" else a - b
    problem = f"{number_words(a)} {word} {number_words(b)}"
    text = rng.choice(("what is {}", "how much is {}", "calculate {}", "tell me the result of {}", "compute {}"))
    return Utterance(text.format(problem), f"{problem} is {number_words(value)}", {})


def _capital(rng: random.Random) -> Utterance:
    country, city = rng.choice(tuple(words.CAPITALS.items()))
    text = rng.choice(("what is the capital of {}", "tell me the capital city of {}", "name the capital of {}"))
    return Utterance(text.format(country), f"the capital of {country} is {city}", {})


def _fact(rng: random.Random) -> Utterance:
    table, text, answer = rng.choice(
        (
            (words.OPPOSITES, "what is the opposite of {}", "the opposite of {} is {}"),
            (words.TINTS, "what color is {}", "{} is {}"),
            (words.LEGS, "how many legs does a {} have", "a {} has {} legs"),
            (words.BABIES, "what is a baby {} called", "a baby {} is called a {}"),
        )
    )
    key, value = rng.choice(tuple(table.items()))
    polite = rng.choice(("", "please tell me ", "do you know ", "quick question "))
    return Utterance(polite + text.format(key), answer.format(key, value), {})


def _between(rng: random.Random) -> Utterance:
    first, second = rng.sample(words.CITIES, 2)
    vehicle = rng.choice(words.VEHICLES)
    return Utterance(
        f"how far is {first} from {second} by {vehicle}", f"measuring the way from {first} to {second}", {}
    )


def _lost(rng: random.Random) -> Utterance:
    thing = rng.choice(("keys", "glasses", "wallet", "phone", "jacket", "umbrella", "headphones", "ring", "watch"))
    room = rng.choice(words.ROOMS)
    return Utterance(f"i left my {thing} in the {room}", f"i will remember the {thing} in the {room}", {"room": room})


_CHOICES: tuple[tuple[Callable[[random.Random], Utterance], float], ...] = (
    (_switch, 1.5), (_switch_in, 1), (_opening, 1), (_color, 0.6), (_percent, 1), (_timer, 0.7), (_dish_timer, 0.5),
    (_alarm, 1), (_weather, 1.5), (_sky, 1), (_music, 1), (_band, 0.5), (_volume, 0.5), (_call, 1.5),
    (_two_people, 1.5), (_remind, 1.5), (_calendar, 1.5), (_date, 0.8), (_shopping, 1.2), (_buy, 1), (_navigate, 1.5),
    (_translate, 0.6), (_recipe, 1), (_news, 1), (_sum, 1.5), (_capital, 0.8), (_fact, 1.8), (_between, 0.7),
    (_lost, 0.4),
)  # fmt: skip
_TEMPLATES = tuple(template for template, _ in _CHOICES)
_WEIGHTS = tuple(weight for _, weight in _CHOICES)
