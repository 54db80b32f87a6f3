"""Two thousand presets with something changed, drawn by a seed: each is accepted, or refused at once and in words."""

import copy
import functools
import itertools
import math
import random

import pytest

from mtl_study import artifacts, parameters

MUTATIONS = 2000
PRESETS = {
    name: parameters.preset_values(artifacts.REPOSITORY / "params" / "smoke" / f"{name}.yaml")
    for name in parameters.SCHEMAS
}


# -- mutations ---------------------------------------------------------------------------------------------------------


def places(value, where=()):
    """Every place in nested values."""
    if isinstance(value, dict):
        for name, item in value.items():
            yield (*where, name)
            yield from places(item, (*where, name))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield (*where, i)
            yield from places(item, (*where, i))


def other(value, rng):
    """Another value in place of this one: mostly one that might be meant."""
    strange = [None, "", "x", -1, 0, 2**64, math.inf, math.nan, [], {}, True, "1e-3", "~/x", "C:\\x", "../x", 1e308]
    match value:
        case _ if rng.random() < 0.2:
            return rng.choice(strange)
        case bool():
            return not value
        case int():
            return rng.choice([value + 1, value - 1, 1, 2, 3, 2 * value, max(value // 2, 1), float(value)])
        case float():
            return rng.choice([value / 2, 2 * value, 1, 0.0, 1.0, -value, value])
        case str():
            return rng.choice([value.upper(), value[1:], value + "x", *WORDS])
        case list():
            changed = [copy.deepcopy(one) for one in value]
            match rng.randrange(6):
                case 0 if changed:
                    changed.pop(rng.randrange(len(changed)))
                case 1 if changed:
                    changed.append(rng.choice(changed))
                case 2:
                    rng.shuffle(changed)
                case 3:
                    changed = changed[:1]
                case 4:
                    return str(value)
                case _:
                    changed.append(other(changed[0], rng) if changed else 1)
            return changed
    return rng.choice(strange)


WORDS = [
    "edm",
    "imtl",
    "si",
    "grid",
    "published",
    "embedded",
    "full",
    "pyg",
    "float64",
    "cpu",
    "cuda",
    "plateau",
    "never",
]


def mutated(values, rng):
    """These values with one to three things changed."""
    values = copy.deepcopy(values)
    for _ in range(rng.choice([1, 1, 1, 2, 3])):
        *path, name = rng.choice([place for place in places(values) if place != ("preset",)])
        owner = functools.reduce(lambda part, step: part[step], path, values)
        match rng.random():
            case chance if chance < 0.06:
                del owner[name]
            case chance if chance < 0.1 and isinstance(owner, dict):
                owner[f"{name}s"] = owner.pop(name)
            case _:
                owner[name] = other(owner[name], rng)
    return values


@functools.cache
def drawn(mutations=MUTATIONS):
    """The notebook, the values and what is wrong with them, of every mutation."""
    rng, found = random.Random(19), []
    for notebook in itertools.islice(itertools.cycle(PRESETS), mutations):
        values = mutated(PRESETS[notebook], rng)
        found.append((notebook, values, parameters.problems_of(notebook, values)))
    return found


@pytest.mark.parametrize("mutations", [200, pytest.param(MUTATIONS, marks=pytest.mark.slow)])
def test_every_mutation_is_checked_in_words(mutations):
    """Some are taken and most are not."""
    found = drawn(mutations)
    accepted = [notebook for notebook, _, wrong in found if not wrong]
    assert set(accepted) == set(PRESETS) and len(accepted) < mutations / 2
    said = [sentence for _, _, wrong in found for sentence in wrong]
    assert all(sentence.strip() and "Traceback" not in sentence and "object at" not in sentence for sentence in said)
