"""From numbers to the table: ratios against the targets, with their spread. Pure; it starts and measures nothing."""

import os
import re
from statistics import median

# measure, rival, comparison, bound
TARGETS = [
    ("rps32", "haproxy", ">=", 1.0), ("rps32", "relay", ">=", 0.9), ("rps32", "go", ">=", 3.0),
    ("rps32-tls", "haproxy", ">=", 1.0), ("rps32-tls", "go", ">=", 2.8),
    ("rps1", "nginx", ">=", 0.9),
    ("dial", "go", ">=", 3.0),
    ("dialreq", "nginx", ">=", 0.9),
    ("down", "relay", ">=", 0.95), ("down-tls", "go", ">=", 1.3),
    ("idle", "go", "<=", 0.35),
    ("start", "go", "<=", 1.0), ("start-tls", "go", "<=", 1.0),
]
STARTS = ("start", "start-tls")
START_BUDGET_MS = 1.0
ORDER = ["env", "direct", "relay", "haproxy", "haproxy-1", "nginx", "go", "broker"]


def number(value):
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def quartiles(values):
    ordered = sorted(values)
    return ordered[len(ordered) // 4], ordered[(3 * len(ordered)) // 4 - (len(ordered) % 4 == 0)]


def spread(key, values):
    """Minimum and maximum of rounds; quartiles of the many start-ups."""
    low, high = quartiles(values) if key in STARTS else (min(values), max(values))
    return f"{number(median(values))} ({number(low)} – {number(high)})"


def verdict(value, comparison, bound):
    met = value >= bound if comparison == ">=" else value <= bound
    return "met" if met else "**not met**"


def pairs(results, key, rival, combine):
    """What the broker gave against the rival in the same round; empty if either has no number."""
    got = results.get(key, {})
    return [combine(a, b) for a, b in zip(got.get("broker", []), got.get(rival, []))]


def target_rows(titles, results):
    for key, rival, comparison, bound in TARGETS:
        if key not in titles:
            continue
        ratios = pairs(results, key, rival, lambda a, b: a / b if b else float("inf"))
        if ratios:
            yield titles[key], rival, spread(key, ratios), f"{comparison} {bound:g}", verdict(median(ratios), comparison, bound)
        else:
            yield titles[key], rival, "–", f"{comparison} {bound:g}", "no number"
        if key in STARTS:
            extra = pairs(results, key, "env", lambda a, b: a - b)
            limit = f"<= {START_BUDGET_MS:g} ms"
            if extra:
                yield titles[key], "env true, extra ms", spread(key, extra), limit, verdict(median(extra), "<=", START_BUDGET_MS)
            else:
                yield titles[key], "env true, extra ms", "–", limit, "no number"


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as info:
        found = re.search(r"model name\s*:\s*(.+)", info.read())
    return found.group(1) if found else "unknown processor"


def render(options, field, absent, titles, results, failures):
    kernel = re.match(r"[\d.]+", os.uname().release).group(0).rstrip(".")
    cores = len(os.sched_getaffinity(0))
    names = [n for n in ORDER if any(n in row for row in results.values())]
    numbers = []
    for key, row in results.items():
        cells = [titles[key]]
        for name in names:
            values = row.get(name)
            failed = (key, name) in failures
            cells.append("failed" if failed else spread(key, values) if values else "")
        numbers.append(cells)
    versions = "; ".join(f"{rival.name}: {rival.version}" for rival in field)
    parts = [
        "# Benchmark results",
        f"Linux {kernel}, {cores} cores ({processor()}), everything on loopback, upstream nginx with one worker. "
        f"{options.rounds} interleaved rounds{' (quick: rough numbers)' if options.quick else ''}; "
        f"{options.secs:g} s per rate, {options.download} MiB down, {options.upload} MiB up, "
        f"{options.idle} idle connections; load average before: {options.load_before:.1f}. Only ratios within one run mean something.",
        versions + ".",
        "## Against the targets",
        "The broker's number divided by the rival's of the same round: median (least – greatest; quartiles for start-up).",
        table(["measure", "against", "ratio", "target", ""], target_rows(titles, results)),
        "## Numbers",
        "Median (least – greatest; quartiles for start-up). Higher is better, but for memory and start-up.",
        table(["measure", *names], numbers),
    ]
    missing = [f"- {name} was skipped: {why}" for name, why in absent.items()]
    missing += [f"- {name} failed at {titles[key]}: {why}" for (key, name), why in failures.items()]
    if missing:
        parts += ["## Without a number", "\n".join(missing)]
    return "\n\n".join(parts) + "\n"
