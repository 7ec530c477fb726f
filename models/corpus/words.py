"""Vocabulary of the demo's closed world: word lists and a few facts, all lower case."""


def word_list(text: str, separator: str | None = None) -> tuple[str, ...]:
    """The words of a list, or its phrases between separators; lines may break anywhere."""
    return tuple(" ".join(part.split()) for part in text.split(separator))


ROOMS = word_list(
    """
    kitchen, bedroom, bathroom, garage, office, garden, hallway, cellar, attic, nursery, library, studio, pantry,
    balcony, corridor, porch, basement, workshop, lounge, terrace, living room, dining room, guest room, laundry
    room
    """,
    ",",
)
DEVICES = word_list(
    """
    light, lamp, fan, heater, speaker, radio, television, camera, oven, kettle, dishwasher, printer, computer,
    monitor, toaster, freezer, humidifier, projector, sprinkler, alarm, vacuum, stove, fountain, router, chandelier,
    washing machine, coffee machine, air conditioner
    """,
    ",",
)
OPENINGS = word_list("door window blinds curtains gate shutters skylight drawer cupboard fence")
CITIES = word_list(
    """
    london paris berlin madrid tokyo boston chicago denver oslo rome vienna prague warsaw budapest lisbon dublin
    athens helsinki stockholm copenhagen brussels amsterdam moscow istanbul cairo nairobi lagos toronto montreal
    vancouver seattle portland dallas houston phoenix miami atlanta detroit sydney melbourne brisbane auckland
    singapore bangkok manila mumbai delhi shanghai beijing seoul osaka lima havana santiago geneva zurich munich
    hamburg cologne milan venice naples florence barcelona valencia seville manchester liverpool glasgow edinburgh
    cardiff belfast oxford cambridge bristol bucharest ottawa canberra ankara
    """
)
PEOPLE = word_list(
    """
    alice bob carol david emma frank grace henry julia kevin laura martin nancy oliver paula robert sarah thomas
    victor wendy adam barbara charles diana edward fiona george hannah isabel jacob karen lucas margaret nathan
    olivia patrick rachel samuel teresa vincent william xavier yvonne zachary amanda benjamin catherine daniel elena
    felix gabriel helen ivan jessica leonard maria nicholas oscar peter rebecca simon tiffany ursula vanessa walter
    angela brandon cynthia dennis erica gregory harold irene jeremy kimberly lawrence melissa norman pamela raymond
    sandra timothy valerie
    """
)
RELATIVES = word_list(
    """
    my mother, my father, my sister, my brother, my uncle, my aunt, my boss, my neighbor, my doctor, my dentist, my
    lawyer, my teacher, the plumber, the electrician, the police, the hospital
    """,
    ",",
)
ITEMS = word_list(
    """
    apples eggs lemons onions carrots potatoes tomatoes bananas oranges grapes cherries peaches plums mushrooms
    peppers cucumbers melons radishes candles batteries napkins envelopes pencils bottles sausages muffins cookies
    crackers pancakes avocados strawberries blueberries walnuts olives pumpkins sponges towels notebooks
    """
)
GOODS = word_list(
    """
    milk bread butter cheese sugar flour coffee tea rice pasta honey yogurt chicken salmon spinach broccoli cabbage
    garlic ginger cinnamon vinegar mustard chocolate soap shampoo toothpaste detergent cereal lettuce celery parsley
    juice bacon tuna salt
    """
)
GENRES = word_list(
    """
    jazz rock classical folk piano guitar blues country reggae opera disco techno electronic gospel latin orchestral
    acoustic relaxing romantic cheerful violin flute
    """
)
DAYS = word_list("monday tuesday wednesday thursday friday saturday sunday")
MONTHS = word_list("january february march april may june july august september october november december")
TODAY = word_list("today, tomorrow, tonight, this weekend, next week, this evening, this afternoon", ",")
SKY = word_list("rain snow storm fog hail thunder frost sunshine")
UNITS = word_list("seconds minutes hours")
COLORS = word_list("red green blue yellow purple orange white pink golden violet turquoise silver")
TASKS = word_list(
    """
    water the plants, feed the cat, walk the dog, pay the rent, wash the car, take the medicine, clean the carpet,
    charge the phone, return the books, renew the passport, buy the tickets, bake a cake, fix the bicycle, mow the
    lawn, empty the trash, change the filter, book a hotel, order a pizza, iron the shirts, check the mailbox, pack
    the suitcase, lock the safe, sign the contract, send the invoice, cancel the subscription, practice yoga, visit
    the museum, update the software, measure the shelf, sharpen the knives, polish the shoes, repair the roof, paint
    the wall, sweep the floor, collect the parcel, finish the report, prepare the presentation, sell the sofa,
    stretch my shoulders, brush the horse
    """,
    ",",
)
EVENTS = word_list(
    """
    meeting appointment party dinner lunch breakfast interview lesson concert wedding rehearsal conference flight
    birthday exam picnic workout lecture festival ceremony
    """
)
LANGUAGES = word_list(
    """
    french german spanish italian russian japanese chinese korean arabic turkish polish dutch swedish greek hindi
    portuguese norwegian hungarian
    """
)
PHRASES = word_list(
    """
    hello, goodbye, thank you, good morning, good night, see you soon, excuse me, happy new year, where is the
    station, how much does it cost, i am hungry, i am lost, nice to meet you, please help me
    """,
    ",",
)
DISHES = word_list(
    """
    soup stew lasagna curry omelette risotto salad tacos noodles dumplings burger sandwich pudding cheesecake pie
    chili sushi meatballs
    """
)
TOPICS = word_list(
    """
    sports politics business science technology weather traffic health economy football tennis basketball baseball
    hockey cricket cycling golf swimming astronomy history travel fashion
    """
)
PLACES = word_list(
    """
    airport, bakery, pharmacy, supermarket, restaurant, gas station, post office, train station, bank, beach,
    stadium, university, theater, zoo, harbor, castle, cathedral, playground, bookstore, cinema, gallery, market
    """,
    ",",
)
VEHICLES = word_list("car bus train bicycle taxi subway ferry plane")
BANDS = word_list(
    """
    the midnight foxes, the silver clouds, the broken compass, the lonely giants, crystal river, the paper lanterns,
    velvet thunder, the wandering sailors, electric meadow, the crimson tigers, the quiet engines, northern wolves
    """,
    ",",
)
CAPITALS = {
    "france": "paris", "germany": "berlin", "spain": "madrid", "japan": "tokyo", "norway": "oslo",
    "italy": "rome", "austria": "vienna", "poland": "warsaw", "hungary": "budapest", "portugal": "lisbon",
    "ireland": "dublin", "greece": "athens", "finland": "helsinki", "sweden": "stockholm",
    "denmark": "copenhagen", "belgium": "brussels", "russia": "moscow", "egypt": "cairo", "kenya": "nairobi",
    "thailand": "bangkok", "china": "beijing", "korea": "seoul", "peru": "lima", "cuba": "havana",
    "chile": "santiago", "england": "london", "scotland": "edinburgh", "canada": "ottawa",
    "australia": "canberra", "turkey": "ankara", "romania": "bucharest", "india": "delhi",
}  # fmt: skip
OPPOSITES = {
    "hot": "cold", "big": "small", "fast": "slow", "young": "old", "happy": "sad", "rich": "poor",
    "hard": "soft", "long": "short", "heavy": "light", "early": "late", "full": "empty", "loud": "quiet",
    "open": "closed", "wet": "dry", "strong": "weak", "bright": "dark", "sweet": "bitter", "wide": "narrow",
    "deep": "shallow", "north": "south", "east": "west", "left": "right", "clean": "dirty", "smooth": "rough",
}  # fmt: skip
TINTS = {
    "a banana": "yellow", "the grass": "green", "the sky": "blue", "snow": "white", "coal": "black",
    "a tomato": "red", "a carrot": "orange", "a flamingo": "pink", "chocolate": "brown", "an elephant": "gray",
    "a lemon": "yellow", "a frog": "green", "milk": "white", "a raven": "black",
}  # fmt: skip
LEGS = {
    "spider": "eight", "ant": "six", "dog": "four", "horse": "four", "bird": "two", "octopus": "eight",
    "bee": "six", "cow": "four", "snake": "zero", "penguin": "two", "butterfly": "six", "sheep": "four",
}  # fmt: skip
BABIES = {
    "cat": "kitten", "dog": "puppy", "cow": "calf", "sheep": "lamb", "horse": "foal", "lion": "cub",
    "duck": "duckling", "goat": "kid", "swan": "cygnet", "kangaroo": "joey", "frog": "tadpole",
}  # fmt: skip

_ONES = word_list(
    """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen
    eighteen nineteen
    """
)
_TENS = word_list("zero ten twenty thirty forty fifty sixty seventy eighty ninety")


def number_words(value: int) -> str:
    """English words for 0 <= value <= 999, e.g. 42 -> "forty two"."""
    if value < 20:
        return _ONES[value]
    if value < 100:
        ones = f" {_ONES[value % 10]}" if value % 10 else ""
        return _TENS[value // 10] + ones
    rest = f" {number_words(value % 100)}" if value % 100 else ""
    return f"{_ONES[value // 100]} hundred{rest}"
