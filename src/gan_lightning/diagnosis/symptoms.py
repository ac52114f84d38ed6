"""One small pure function per rule, likely causes first: history and thresholds in, what was seen
out, or None.

The rule's entry, rules/<name of the function>.yaml, says the rest: severity, thresholds, evidence,
remedies, words. A confidence says how sure it is that this is the *cause*: a symptom that the
settings explain (a learning rate out of range, a lopsided n_critic) ranks above the same symptom
without. All but the certain ones need pictures that are poor and not getting better: a confident
discriminator alone is no fault.
"""

from __future__ import annotations

import math
from statistics import median

from gan_lightning.diagnosis.history import (
    Certain,
    History,
    Lasting,
    Thresholds,
    either,
    every,
    flat,
    number,
    poor,
    short,
    slow,
)


def _auc(h: History) -> list[float]:
    """Held-out AUC, or the training images' where nothing is held out."""
    pairs = zip(h["auc_heldout"], h["auc_train"], strict=True)
    return [train if math.isnan(held) else held for held, train in pairs]


def divergence(h: History, t: Thresholds) -> Certain | Lasting | None:
    """A NaN or infinity (fatal), or logits or gradients that have run away."""
    for record in h.records:
        if record.get("bad"):
            evidence: dict[str, float | str] = {"first_bad": str(record["bad"])}
            evidence["step"] = record["step"]
            return Certain(1.0, evidence, "fatal", record["nimg"] / 1000)
    scores = zip(h["score_real"], h["score_fake"], strict=True)
    run_away = [max(abs(real), abs(fake)) > t["score"] for real, fake in scores]
    for side in "gd":
        norms = h[f"grad_norm_{side}"]
        jumped = [
            i >= 4 and norm > t["gradient"] * median(norms[:i]) for i, norm in enumerate(norms)
        ]
        run_away = either(run_away, jumped)
    return Lasting(every(run_away, poor(h, t)), 0.55, flat(h, t))


def wrong_range(h: History, t: Thresholds) -> Certain | None:
    """Training pixels that do not use [-1, 1], differ from what is stored, or are inverted."""
    low, high, mean = (h.fact(f"real_{name}") for name in ("min", "max", "mean"))
    stored, agree = h.fact("stored_mean"), h.fact("mean_image")
    apart = max(t["apart"], 4 * h.fact("mean_error", 0.0))  # one batch is not the whole set
    changed = abs(mean - stored) > apart
    mirrored = changed and abs(stored) > apart and abs(mean + stored) < apart / 2
    unit = "in [0, 1] instead of [-1, 1]"
    confidence, problem = 0.0, ""
    if high > 1.01 or low < -1.01:
        confidence, problem = 1.0, "outside [-1, 1]"
    elif agree < -t["agree"] or mirrored:
        confidence, problem = 0.95, "inverted against the stored images"
    elif changed and abs(mean - (stored + 1) / 2) < apart / 2:
        confidence, problem = 0.95, unit
    elif low >= -0.05 and abs(low) < 0.01 and high > 0.95:
        confidence, problem = 0.9, unit
    elif low >= -0.05:
        confidence, problem = 0.5, "no dark pixel at all"
    elif h.facts.get("dataset") in ("mnist", "fashion_mnist") and mean > 0:
        confidence, problem = 0.9, "inverted: these images are mostly dark"
    if not problem:
        return None
    numbers = {"minimum": short(low), "maximum": short(high), "mean": short(mean)}
    severity = "fault" if confidence > 0.6 else "warning"
    return Certain(confidence, {"problem": problem, **numbers}, severity)


def altered_images(h: History, t: Thresholds) -> Certain | None:
    """The images that reach the networks are not the stored ones, by more than chance."""
    apart, chance = h.fact("seen_apart"), h.fact("seen_chance")
    if not apart > max(t["distance"], t["chance"] * chance):
        return None
    evidence = {"distance_to_stored": short(apart), "distance_by_chance": short(chance)}
    return Certain(0.88, {**evidence})


def wrong_channels(h: History, t: Thresholds) -> Certain | None:
    """Images whose channels are not those of `dataset.image_channels`."""
    have, want = h.fact("channels"), number(h.settings.image_channels)
    if math.isnan(have) or math.isnan(want) or have == want:
        return None
    return Certain(1.0, {"images_have": have, "configured": want})


def lr_too_high(h: History, t: Thresholds) -> Lasting:
    """Updates large beside the weights, or a rate out of every range, and poor pictures."""
    s = h.settings
    extreme = s.lr[s.hot] > s.high[s.hot]
    pairs = zip(h["update_ratio_g"], h["update_ratio_d"], strict=True)
    large = [extreme or min(pair) > t["ratio"] for pair in pairs]
    mask = every(poor(h, t), large)  # one better moment does not clear it
    return Lasting(mask, 0.95 if extreme else 0.45, flat(h, t), mask)


def lr_too_low(h: History, t: Thresholds) -> Lasting:
    """The generator's weights hardly move, and its pictures are poor."""
    ending = [left < 0.1 for left in h["lr_fraction"]]  # a schedule's end is meant to be slow
    updates = zip(h["update_ratio_g"], ending, strict=True)
    still = [update < t["ratio"] and not end for update, end in updates]
    explained = h.settings.lr_g < h.settings.low["g"]
    return Lasting(every(poor(h, t), still), 0.95 if explained else 0.6)


def small_batch_norm(h: History, t: Thresholds) -> Lasting:
    """The generator's images differ in train and eval mode: batches of too few images."""
    tiny = h.settings.batch_size < t["batch"]
    gaps = zip(h["mode_gap"], poor(h, t), strict=True)
    mask = [gap > t["gap"] if tiny else gap > 2.5 * t["gap"] and bad for gap, bad in gaps]
    return Lasting(mask, 0.9 if tiny else 0.5)


def stale_ema(h: History, t: Thresholds) -> Lasting | None:
    """The EMA of the generator is clearly worse than its weights: it still remembers too old
    ones."""
    halflife, total = h.settings.halflife * 1000, h.settings.total * 1000
    if not halflife:
        return None
    planned = total or (h.full[-1]["nimg"] if h.full and h.facts.get("ended") else math.inf)
    long = halflife > t["fraction"] * planned
    judged = [record["nimg"] > 5 * halflife or long for record in h.full]
    pairs = zip(h["quality_ema"], h["quality_raw"], strict=True)
    worse = [ema > (1 + t["worse"]) * max(raw, 0) + t["margin"] for ema, raw in pairs]
    return Lasting(every(judged, worse), 0.85)


def d_too_weak(h: History, t: Thresholds) -> Lasting:
    """The discriminator cannot tell poor fakes from held-out reals, or hardly learns while the
    generator does.

    Where the settings favour the generator, all pictures that are not good and hardly get better
    count.
    """
    s = h.settings
    # one that stands still because it is right about everything is not weak
    moves = zip(h["update_ratio_d"], h["update_ratio_g"], _auc(h), strict=True)
    frozen = [d < t["ratio"] and g > 20 * d and not auc > t["sure"] for d, g, auc in moves]
    blind = every([auc < t["auc"] for auc in _auc(h)], flat(h, t))
    outrun = s.lr_d * s.n_critic < s.lr_g / t["lead"]
    unfinished = [outrun and q > t["good"] for q in h["quality"]]
    behind = every(unfinished, either(flat(h, t), slow(h, t)))
    mask = either(every(poor(h, t), either(frozen, blind)), behind)
    explained = outrun or s.gamma > 100
    return Lasting(mask, 0.92 if explained else 0.85 if frozen and frozen[-1] else 0.55)


def d_too_strong(h: History, t: Thresholds) -> Lasting:
    """A sure discriminator *and* pictures that stay poor; surest when the settings favour it or the
    gradient vanished.

    Where the settings favour it, pictures that get better only slowly count too, and all that are
    not good yet.
    """
    norms = h["grad_norm_g"]
    early = median([x for x in norms[:4] if not math.isnan(x)] or [math.nan])
    vanished = bool(norms) and norms[-1] < t["gradient"] * early
    favoured = h.settings.lead_d >= t["lead"]
    bad = [q > t["good" if favoured else "poor"] for q in h["quality"]]
    mask = every(bad, [auc > t["auc"] for auc in _auc(h)])
    confidence = min(0.92, 0.5 + 0.35 * favoured + 0.2 * vanished)
    return Lasting(mask, confidence, slow(h, t) if favoured else flat(h, t))


def d_overfits(h: History, t: Thresholds) -> Lasting:
    """Training images look more real to the discriminator than held-out ones, by more than chance,
    and it hurts.

    Hurts: the pictures are not good, and nothing improves or held-out images look about as fake as
    the fakes.
    """
    memory = zip(h["auc_memory"], h["auc_memory_error"], strict=True)
    beyond_chance = [auc - 0.5 > t["sigma"] * error for auc, error in memory]
    pairs = zip(h["auc_train"], h["auc_heldout"], strict=True)
    gap = [train - held > t["gap"] for train, held in pairs]
    large = either(gap, [r_v > t["r_v"] for r_v in h["r_v"]])
    blatant = [r_v > t["blatant"] for r_v in h["r_v"]]
    hurts = every([q > t["good"] for q in h["quality"]], either(flat(h, t), blatant))
    few = h.fact("n_train") < 2000 and not h.settings.augmented
    return Lasting(every(beyond_chance, large, hurts), 0.88 if few else 0.6)


def wrong_output(h: History, t: Thresholds) -> Lasting:
    """Images never below 0 where the data is, though as bright; or values beyond [-1, 1]."""
    dark, bright = h.fact("darkest_real"), h.fact("brightest_real")
    ends = list(zip(h["darkest_fake"], h["brightest_fake"], strict=True))
    pinned = [
        -0.02 < low < t["zero"] and dark < -t["apart"] and high > bright - t["apart"]
        for low, high in ends
    ]
    beyond = [low < -t["limit"] or high > t["limit"] for low, high in ends]
    return Lasting(either(every(pinned, poor(h, t)), beyond), 0.9)


def dead_output(h: History, t: Thresholds) -> Lasting:
    """Pixels stuck at black or white far beyond the data's, or images without contrast."""
    signals = zip(h["saturated_fake"], h["saturated_real"], h["image_std"], strict=True)
    stuck = [fake - real > t["saturated"] or std < t["std"] for fake, real, std in signals]
    return Lasting(every(stuck, poor(h, t)), 0.75, flat(h, t))


def network_too_small(h: History, t: Thresholds) -> Lasting:
    """A network made very narrow, and pictures that are not good and hardly get better."""
    narrow = min(h.settings.width_g, h.settings.width_d) < t["width"]
    mask = [narrow and q > t["good"] for q in h["quality"]]
    return Lasting(mask, 0.9, either(flat(h, t), slow(h, t)), mask)


def full_collapse(h: History, t: Thresholds) -> Lasting:
    """Whatever the latent, the generator makes the same image."""
    mask = every(poor(h, t), [d < t["diversity"] for d in h["diversity"]])
    return Lasting(mask, 0.9 if h.settings.latent_dim < 8 else 0.75)


def oscillation(h: History, t: Thresholds) -> Lasting:
    """The generator runs from one kind of image to another and gains nothing, or loses it again."""
    s, q, moved = h.settings, h["quality"], h["travel"]
    lost = [q[i] > t["worse"] * min(q[: i + 1]) for i in range(len(q))]
    far = [i >= 2 and median(moved[i - 2 : i + 1]) > t["travel"] for i in range(len(moved))]
    # without a penalty nothing holds the two together: there, pictures that are only not good count
    # as well
    bad = [x > t["poor" if s.penalised else "invited"] for x in q]
    mask = every(far, bad)
    confidence = 0.5 + 0.15 * (not s.penalised) + 0.15 * (max(s.beta_g, s.beta_d) > 0.5)
    return Lasting(mask, confidence, either(flat(h, t), lost), mask)


def wrong_shapes(h: History, t: Thresholds) -> Lasting:
    """No generated image lies where real ones do, in features that know shapes, for long."""
    precision = t["precision"] * h.fact("precision_real")
    coverage = t["coverage"] * h.fact("coverage_null", 0.97)
    pairs = zip(h["precision"], h["coverage"], strict=True)
    apart = [p < precision and c < coverage for p, c in pairs]
    return Lasting(every(apart, poor(h, t)), 0.7, either(flat(h, t), slow(h, t)), apart)


def partial_collapse(h: History, t: Thresholds) -> Lasting:
    """Large parts of the data are never made, and coverage does not grow."""
    seen, null = h["coverage"], h.fact("coverage_null", 0.97)
    stale = [
        i >= 3 and max(seen[i - 1 : i + 1]) <= max(seen[: i - 1]) + t["growth"]
        for i in range(len(seen))
    ]
    missing = [part > t["missing"] for part in h["modes_missing"]]
    few = either([c < t["coverage"] * null for c in seen], missing)
    # next to no variety counts even where the pictures' average is not poor
    bad = either(poor(h, t), [c < t["blatant"] * null for c in seen])
    confidence = 0.6 + 0.2 * (h.settings.latent_dim < 8)
    return Lasting(every(few, bad), confidence, every(stale, flat(h, t)), every(few, bad))


def mode_dropping(h: History, t: Thresholds) -> Certain | Lasting | None:
    """A known class or cluster of the held-out images that the generator does not make, while it
    makes the others.

    Certain where the held-out labels name a class that training has (nearly) no image of: nobody
    can make it then.
    """
    if untrained := h.facts.get("untrained_classes"):
        classes = ", ".join(map(str, untrained))
        return Certain(0.9, {"classes_without_training_images": classes})
    if h.settings.mode_images < t["images"]:  # clusters of a handful each
        return None
    pairs = zip(h["modes_missing"], h["coverage"], strict=True)
    mask = [0 < missing <= t["missing"] and c > t["coverage"] for missing, c in pairs]
    # classes are certain; a cluster of odd photographs comes late in many a good run, and is worth
    # no more than a note
    severity = "fault" if h.facts.get("mode_labels", True) else "note"
    return Lasting(mask, 0.6, severity=severity)


def checkerboard(h: History, t: Thresholds) -> Lasting:
    """A pattern with a period of two pixels that the photos do not have: a peak, not noise."""
    late = [
        record["step"] > t["warmup"] and number(record.get("quality")) < t["quality"]
        for record in h.full
    ]
    least = t["ratio"] * max(h.fact("nyquist_real"), t["visible"])  # NaN first: nothing then
    strong = [amplitude > least for amplitude in h["nyquist_fake"]]
    sharp = [peak > t["peak"] for peak in h["nyquist_peak"]]
    transposed = h.settings.upsample == "transposed"
    return Lasting(every(late, strong, sharp), 0.85 if transposed else 0.65)


def copies_photos(h: History, t: Thresholds) -> Lasting:
    """Fakes lie much nearer to training images than held-out reals do."""
    return Lasting([ratio < t["ratio"] for ratio in h["copy_ratio"]], 0.7)


def dataset_too_small(h: History, t: Thresholds) -> Certain | None:
    """Fewer training images than a generator can learn from, or mostly copies of each other."""
    small = h.fact("n_train") < t["images"] or h.fact("duplicates") > t["duplicates"]
    return Certain(0.92) if small else None


def stuck(h: History, t: Thresholds) -> Lasting:
    """Poor pictures that have long stopped getting better, and no other rule knows why."""
    return Lasting([q > t["quality"] for q in h["quality"]], 0.3, flat(h, t))


def stopped_early(h: History, t: Thresholds) -> Certain | None:
    """Not a fault: the run has ended while its pictures were still getting better."""
    q = [x for x in h["quality"] if not math.isnan(x)]
    if h.early(t) or not h.facts.get("ended") or len(q) < 3 or q[-1] <= t["good"]:
        return None
    if min(q[-2:]) > (1 - 2 * t["per_check"]) * min(q[:-2]):
        return None
    return Certain(0.8, since_kimg=h.full[-1]["nimg"] / 1000)
