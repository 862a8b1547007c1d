"""What a run found, as tables, goals and plots. Every figure of the page comes from here."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from candidates import CANDIDATES

__all__ = ["tables", "write"]

LINKS_GB_PER_S = (0.1, 0.5, 2.0)
MB = 2**20

_TITLES = {
    "fresh": "Fresh task process: import, store and read 200 kB of records",
    "warm": "The same in a process that has done so before",
    "records": "60,000 records, 8 MB of JSON",
    "frame": "DataFrame of 1,000,000 x 10 with strings and dates, 95 MB",
    "array": "NumPy array of 64 MiB",
    "bytes": "64 MiB of bytes",
}


def write(found: dict[str, Any], docs: Path) -> None:
    """Write the page, the figures and the plots."""
    images = docs / "images"
    images.mkdir(parents=True, exist_ok=True)
    (docs / "performance.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    (docs / "performance.md").write_text(_page(found), encoding="utf-8")
    _plot_ratios(found["measures"], images / "performance.svg")


def _page(found: dict[str, Any]) -> str:
    machine = found["machine"]
    rounds = (
        "These figures are of `--quick` runs, of few rounds, on a machine that was busy with other work.\n"
        if found.get("is_quick")
        else ""
    )
    packages = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    return f"""# Performance

This page, `performance.json` and the plots are written by one command, and nothing in them by hand:

```
make bench                       # everything, about 20 minutes; writes this page
make bench ARGS=--quick          # few rounds; prints the tables only
make bench ARGS='--only frame'   # one measure; prints its table only
```

It stores and reads the same values in the same run with this backend, with Airflow's
`XComObjectStorageBackend` (on gcsfs), in the way of the blog post of 2023 (`GCSHook`, a temporary file,
JSON), and with no backend at all: the **floor** is one request by urllib3 each way and the fastest open
format, without any check. All speak to one fake-gcs-server on the loopback interface, so no network is
measured but where it says so.

The goals are about what a user feels: wall time on a link like one to a bucket, bytes, requests, and
memory. Below them stands what each candidate costs in CPU.

**What holds on other machines** are the ratios to the floor within the run, the requests, the bytes and
the memory. Seconds do not: they are of one machine ({machine["processors"]} processors,
{machine["system"]}, Python {machine["python"]}), which may have been busy with something else.
{rounds}
![CPU time of candidates relative to the floor](images/performance.svg)

{tables(found, is_page=True)}

## How it is measured
- Candidates take turns, and each round begins with another one. Figures are medians over rounds;
  ratios are medians of the ratios within each round. `performance.json` has every round.
- CPU is what the process used in user and system mode, all threads together. The server and the proxy
  are processes of their own.
- A fresh process is forked, as Airflow forks those of tasks, from one that has imported Airflow's
  supervisor and task runner, and nothing of a candidate.
- Memory that a step may need is touched just before its clock starts. A virtual machine may give free
  memory back to its host, and whoever touches it first then waits until the host has found it again.
- Memory is how far the resident set grows at most beyond what it was just before, in a process that
  has stored and read a small value of that kind.
- Requests are counted by a proxy that passes them on; for the fan-in it waits 20 ms before each.
- gcsfs asks Google about the kind of a bucket before it uses one, even with an emulator's address; that
  is switched off here (`GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT=false`), which makes it faster by seconds.
- Versions: {packages}.

What regresses without anybody running this is caught by `tests/test_performance_guard.py`: it counts
requests, allocated bytes and stored bytes, which do not depend on the machine.
"""


def tables(found: dict[str, Any], *, is_page: bool = False) -> str:
    """Return what was measured, in Markdown; for the page without what its goals say already."""
    measures = found["measures"]
    parts = [_goals_table(measures)] if found.get("slower", 1) == 1 else []
    if any(name in measures for name in _TITLES):
        parts.append(_overview(measures))
    if not is_page:
        parts += [_detail(title, measures[name]) for name, title in _TITLES.items() if name in measures]
    for name, section in (
        ("frame", _formats),
        ("link", _link),
        ("large", _large),
        ("fan-in", _fan_in),
        ("memory", _memory),
        ("requests", _requests),
        ("dags", _dags),
    ):
        if measures.get(name) and not (is_page and name == "requests"):
            parts.append(section(measures[name]))
    return "\n\n".join(part for part in parts if part)


# ---------------------------------------------------------------------------------------------- goals


@dataclass(frozen=True)
class _Goal:
    text: str
    found: str
    is_reached: bool


def _goals_table(measures: dict[str, Any]) -> str:
    goals = list(_goals(measures))
    rows = [
        [
            goal.text,
            goal.found,
            "reached" if goal.is_reached else "**missed**: [why](decisions.md#performance)",
        ]
        for goal in goals
    ]
    return "## Goals\n" + _markdown(["goal", "found", ""], rows) if goals else ""


def _goals(measures: dict[str, Any]) -> Iterable[_Goal]:
    yield from _link_goals(measures.get("link", {}))
    if "records" in measures:
        ours = measures["records"]["ours"]["stored"]
        share = measures["records"]["blog-post"]["stored"] / ours
        yield _Goal("Records: stored bytes at most 1/6 of the JSON", f"1/{share:.1f}", share >= 6)
    if "frame" in measures:
        frame = measures["frame"]
        size = frame["ours"]["stored"] / 1e6
        floor = frame["floor"]["stored"] / 1e6
        yield _Goal(
            "DataFrame: stored bytes at most 33 MB", f"{size:.1f} MB (plain Parquet: {floor:.1f})", size <= 33
        )
    if "fan-in" in measures:
        fan_in = measures["fan-in"]
        for how, words in (("get_all", "one pull"), ("lazy", "`load_all`")):
            times = fan_in["object-storage get_all"]["wall"] / fan_in[f"ours {how}"]["wall"]
            yield _Goal(
                f"Fan-in by {words}: 20 times faster than object storage", f"{times:.1f} times", times >= 20
            )
            asked = fan_in[f"ours {how}"]["requests"]
            yield _Goal(f"Fan-in by {words}: 256 requests", f"{asked:.0f}", asked == 256)
    if "memory" in measures:
        over = max(_beyond(facts) for name, facts in measures["memory"].items() if _is_ours(name))
        yield _Goal(
            "Memory at most value + stored bytes + 64 MB in every codec",
            f"+ {over / MB:.0f} MB",
            over <= 64 * MB,
        )
    if "requests" in measures:
        most = max(max(facts.values()) for name, facts in measures["requests"].items() if _is_ours(name))
        yield _Goal(
            "One request for a stored value, one for a read one, below 16 MiB", f"{most:.0f}", most == 1
        )
    yield from _large_goals(measures.get("large", {}))


def _link_goals(link: dict[str, Any]) -> Iterable[_Goal]:
    """Wall time where a user feels it; half of eight connections' rate for the stream."""
    for name, words, step, limit in (
        ("bytes 64", "64 MiB of bytes", "store", 0.60),
        ("bytes 64", "64 MiB of bytes", "load", 0.22),
        ("bytes 256", "256 MiB of bytes", "store", 1.80),
        ("bytes 256", "256 MiB of bytes", "load", 0.45),
        ("stream 1024", "A stream of 1 GiB", "load", 1.34),
    ):
        if name in link:
            seconds = link[name]["ours"][step]
            verb = "stored" if step == "store" else "read"
            yield _Goal(f"{words} {verb} in {limit:.2f} s", f"{seconds:.2f} s", seconds <= limit)
    for name, words in (("records 0.2", "200 kB of records"), ("frame 1", "DataFrame of 1,000,000 x 10")):
        if name in link:
            found = link[name]
            ours, floor = (sum(found[one][step] for step in ("store", "load")) for one in ("ours", "floor"))
            yield _Goal(
                f"{words} stored and read in 1.1 times what the floor takes",
                f"{ours / floor:.2f} times ({ours:.2f} s)",
                ours <= 1.1 * floor,
            )
    if "stream 1024" in link:
        grown = max(link["stream 1024"]["ours"][f"{step}_peak"] for step in ("store", "load"))
        yield _Goal("A stream of 1 GiB: at most 160 MB of memory", f"{grown / 1e6:.0f} MB", grown <= 160e6)


def _large_goals(large: dict[str, Any]) -> Iterable[_Goal]:
    if not large:
        return
    grown = max(large[f"{verb}_{kind}"]["peak"] for verb in ("store", "load") for kind in ("file", "table"))
    yield _Goal(
        "A `File` and a `Table` of 4 GiB, both ways: at most 160 MB of memory",
        f"{grown / 1e6:.0f} MB",
        grown <= 160e6,
    )
    two, every = large["load 2 columns"], large["load 19 columns"]
    share, cpu = two["bytes"] / every["bytes"], two["cpu"] / every["cpu"]
    yield _Goal("Two of 19 columns: at most 15 % of the bytes", f"{share:.1%}", share <= 0.15)
    yield _Goal("Two of 19 columns: at most 25 % of the CPU", f"{cpu:.1%}", cpu <= 0.25)
    yield _Goal("Two of 19 columns: at most 10 requests", f"{two['requests']:.0f}", two["requests"] <= 10)
    grown = two["peak"]
    yield _Goal("Two of 19 columns: at most 60 MB of memory", f"{grown / 1e6:.0f} MB", grown <= 60e6)
    read = large["load_items 1000"]["bytes"] / 8e6
    yield _Goal("1,000 mapped tasks over 8 MB of `Items`: 16 MB read in all", f"{8 * read:.1f} MB", read <= 2)
    asked = large["load_items 1"]["requests"]
    yield _Goal("Length and one item of `Items`: two requests", f"{asked:.0f}", asked <= 2)


def _ratio(facts: dict[str, Any], one: str, other: str) -> float:
    """Return the median of the ratios of CPU within each round."""
    if one not in facts or other not in facts:
        return float("nan")
    rounds = [facts[name].get("cpu_rounds", [facts[name]["cpu"]]) for name in (one, other)]
    return float(statistics.median(first / second for first, second in zip(*rounds, strict=True)))


def _is_ours(name: str) -> bool:
    return name.split()[0] in ("ours", "arrow")


def _beyond(facts: dict[str, Any]) -> float:
    """Return what the worse of store and load needed beyond one value and the stored bytes."""
    return float(max(facts["store"], facts["load"]) - facts["value"] - facts["stored"])


# --------------------------------------------------------------------------------------------- tables


def _markdown(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _label(name: str) -> str:
    return CANDIDATES[name].label if name in CANDIDATES else name


def _overview(measures: dict[str, Any]) -> str:
    names = [name for name in CANDIDATES if name != "floor"]
    rows = []
    for measure, title in _TITLES.items():
        if measure in measures:
            cells = [_ratio(measures[measure], name, "floor") for name in names]
            texts = ["-" if cell != cell else f"{cell:.2f}" for cell in cells]
            rows.append([title, *texts, f"{measures[measure]['floor']['cpu'] * 1000:,.1f} ms"])
    note = "\n\n`-`: raises TypeError, or is not meant for it."
    head = ["CPU of store + read, times the floor's", *map(_label, names), "floor"]
    return "## CPU beside the floor\n" + _markdown(head, rows) + note


def _detail(title: str, facts: dict[str, Any]) -> str:
    rows = []
    for name, found in facts.items():
        row = [_label(name), f"{_ratio(facts, name, 'floor'):.2f}", _ms(found["cpu"])]
        row += [_ms(found[step]) if step in found else "" for step in ("import_cpu", "store_cpu", "load_cpu")]
        row += [_ms(found["wall"]), f"{found['stored'] / 1e6:,.1f} MB" if "stored" in found else ""]
        rows.append(row)
    head = ["", "CPU / floor", "CPU, ms", "import", "store", "read", "wall, ms", "stored"]
    kept = [column for column in range(len(head)) if any(row[column] for row in rows)]
    return f"## {title}\n" + _markdown(
        [head[column] for column in kept], [[row[column] for column in kept] for row in rows]
    )


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f}"


def _formats(facts: dict[str, Any]) -> str:
    rows = []
    wins = []
    for link in LINKS_GB_PER_S:
        seconds = {
            name: facts[name]["cpu"] + 2 * facts[name]["stored"] / (link * 1e9)
            for name in ("ours", "arrow", "floor", "object-storage")
            if name in facts
        }
        rows.append([f"{link:g} GB/s", *(f"{second:.2f} s" for second in seconds.values())])
        wins.append((link, "Parquet" if seconds["ours"] <= seconds["arrow"] else "Arrow"))
    head = ["link", *(_label(name) for name in seconds)]
    head[1] = "this backend, Parquet"
    saved = facts["ours"]["cpu"] - facts["arrow"]["cpu"]
    more = 2 * (facts["arrow"]["stored"] - facts["ours"]["stored"])
    if saved > 0 and more > 0:
        says = (
            f"Arrow saves {saved * 1000:,.0f} ms of CPU and moves {more / 1e6:,.0f} MB more, there and back: it wins "
            f"where a task gets more than {more / saved / 1e9:.2f} GB/s from the bucket, and Parquet below that."
        )
    else:
        says = "One of them is better in CPU and in bytes: " + wins[0][1] + "."
    return (
        "## When Parquet wins, and when Arrow\n"
        "Time to store and read the frame above: measured CPU plus stored bytes over the link, twice.\n\n"
        + _markdown(head, rows)
        + f"\n\n{says} A bucket keeps what was stored, and everything reads Parquet, BigQuery included: "
        "it is the default, and `frame_format = arrow` the setting for a deployment where tasks that pass "
        "frames wait for their CPU."
    )


def _fan_in(facts: dict[str, Any]) -> str:
    floor = facts["floor get_all"]["wall"]
    rows = []
    for name, found in facts.items():
        candidate, _, how = name.partition(" ")
        way = {"get_all": "one pull", "lazy": "`load_all`" if candidate == "ours" else "iterating"}[how]
        row = [f"{_label(candidate)}, {way}" if candidate != "floor" else "floor, 16 threads"]
        row += [
            f"{found['wall'] / floor:.1f}",
            f"{found['wall']:.2f} s",
            _ms(found["cpu"]),
            f"{found['requests']:.0f}",
        ]
        rows.append(row)
    return (
        "## Fan-in: 256 objects of 100 kB, 20 ms added to each request\n"
        "`concurrency` is 16, the default. A task that takes the output of mapped tasks gets a lazy sequence: "
        "`include.xcom.load_all` reads it in parallel.\n\n"
        + _markdown(["", "wall / floor", "wall", "CPU, ms", "requests"], rows)
    )


def _link(facts: dict[str, Any]) -> str:
    rows = []
    for value, found in facts.items():
        for name, times in found.items():
            row = [f"{_VALUES[value]}, {_label(name)}", f"{times['store']:.2f} s", f"{times['load']:.2f} s"]
            is_parted = value.startswith(("bytes", "stream")) and name == "ours"
            rows.append([*row, f"{times['uploaded']:.2f} s" if is_parted else ""])
    return (
        "## On a link like one to a bucket\n"
        "A proxy waits 45 ms before each request and lets each connection carry 100 MB/s up and 200 MB/s "
        "down, as a standard bucket does. From 64 MiB on, values are sent in parts over 8 connections, and the "
        "server composes them: fake-gcs-server copies the bytes for that, on the processors of this machine, "
        "so the time until the last part had arrived is given as well. From 16 MiB on, they are read in ranges.\n\n"
        + _markdown(["wall time", "to store", "to read", "until the last part had arrived"], rows)
    )


_VALUES = {
    "records 0.2": "200 kB of records",
    "frame 1": "DataFrame of 1,000,000 x 10",
    "bytes 64": "64 MiB of bytes",
    "bytes 256": "256 MiB of bytes",
    "stream 1024": "stream of 1 GiB",
}


def _memory(facts: dict[str, Any]) -> str:
    rows = []
    for name, found in facts.items():
        candidate, _, kind = name.partition(" ")
        cells = [found[part] / MB for part in ("value", "stored", "store", "load")]
        beyond = "0" if _beyond(found) < 0 else f"{_beyond(found) / MB:,.0f}"
        rows.append([f"{kind}, {_label(candidate)}", *(f"{cell:,.0f}" for cell in cells), beyond])
    head = [
        "MB",
        "value",
        "stored",
        "growth while storing",
        "while reading",
        "worse of them beyond value + stored",
    ]
    return (
        "## Memory\n"
        "Reading has to make the value: its growth contains it. `value` is what stays of that growth.\n\n"
        + _markdown(head, rows)
    )


def _requests(facts: dict[str, Any]) -> str:
    rows = []
    for name, found in facts.items():
        candidate, _, kind = name.partition(" ")
        rows.append([f"{_label(candidate)}, {_KINDS[kind]}", f"{found['store']:.0f}", f"{found['load']:.0f}"])
    return "## Requests\n" + _markdown(["", "to store a value", "to read it"], rows)


_KINDS = {
    "records 0.2": "200 kB of records",
    "records 8": "8 MB of records",
    "frame 0.1": "frame of 100,000 rows",
}


def _large(facts: dict[str, Any]) -> str:
    rows = [
        [
            _STEPS[name],
            f"{found['wall']:.2f} s",
            f"{found['cpu']:.2f} s",
            f"{found['peak'] / MB:.0f} MB",
            f"{found['requests']:.0f}",
            f"{found['bytes'] / MB:.1f} MB",
        ]
        for name, found in facts.items()
    ]
    head = ["", "elapsed", "CPU", "growth of the process", "requests", "read from the bucket"]
    return (
        "## Values larger than memory\n"
        "`File`, `Table`, and `Items`, each step in a new process. The large file and table have 4 GiB, or "
        "64 MiB with `--quick`; the list has 8 MB.\n\n" + _markdown(head, rows)
    )


_STEPS = {
    "store_file": "store the file",
    "load_file": "download it",
    "store_table": "store the table",
    "load_table": "stream it",
    "store 1M x 19": "store 1,000,000 rows of 19 columns",
    "load 19 columns": "load all of it",
    "load 2 columns": "load two columns",
    "store_items": "store the list",
    "load_items 1": "its length and one item",
    "load_items 1000": "one item in each of 1,000 mapped tasks",
}


def _dags(facts: dict[str, Any]) -> str:
    calls = sum(facts["calls"].values())
    return (
        "## The example Dags, end to end\n"
        f"`airflow dags test` of the {facts['dags']} example Dags: {facts['tasks']} task instances took "
        f"{facts['tasks_wall']:.1f} s, of which {facts['backend_wall']:.2f} s were inside the backend's {calls} calls "
        f"({facts['share']:.1%}; CPU {facts['backend_cpu']:.2f} s). Their tasks do little but pass values."
    )


# ---------------------------------------------------------------------------------------------- plots

_COLOURS = {
    "ours": "#1f6feb",
    "arrow": "#76a9f5",
    "object-storage": "#b0b0b0",
    "blog-post": "#d9822b",
    "floor": "#444444",
}


def _canvas(width: float, height: float) -> Any:
    import matplotlib

    matplotlib.use("svg")
    # The same figures give the same bytes, and text stays text.
    matplotlib.rcParams |= {
        "svg.hashsalt": "performance",
        "svg.fonttype": "none",
        "font.family": "sans-serif",
        "font.size": 9,
        "axes.spines.top": False,
        "axes.spines.right": False,
    }
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    # White behind it: a README may be shown on a dark page.
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    pyplot.close(figure)
    # Fewer bytes in every commit, and no spaces at the ends of lines.
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(line.rstrip() for line in lines) + "\n", encoding="utf-8")


def _plot_ratios(measures: dict[str, Any], path: Path) -> None:
    """Bars of each candidate beside the floor, which is 1: the plot that says most."""
    groups: list[tuple[str, dict[str, float]]] = []
    for measure, label in (
        ("fresh", "first value of a task\n200 kB of records"),
        ("warm", "each further value\n200 kB of records"),
        ("records", "60,000 records\n8 MB of JSON"),
        ("frame", "DataFrame\n1,000,000 x 10"),
    ):
        if measure not in measures:
            continue
        names = [name for name in measures[measure] if name != "floor"]
        groups.append((label, {name: _ratio(measures[measure], name, "floor") for name in names}))
    if fan_in := measures.get("fan-in"):
        walls = {name: fan_in[f"{name} get_all"]["wall"] for name in ("ours", "object-storage", "blog-post")}
        floor = fan_in["floor get_all"]["wall"]
        groups.append(
            ("fan-in, 256 objects\n(elapsed, 20 ms latency)", {name: walls[name] / floor for name in walls})
        )
    figure, axes = _canvas(7.2, 3.4)
    names = ["ours", "arrow", "object-storage", "blog-post"]
    width, shown = 0.2, set[str]()
    for place, (_, ratios) in enumerate(groups):
        present = [name for name in names if name in ratios]
        for position, name in enumerate(present):
            x = place + (position - (len(present) - 1) / 2) * width
            legend = None if name in shown else _label(name)
            shown.add(name)
            axes.bar(x, ratios[name], width * 0.92, color=_COLOURS[name], label=legend)
            axes.text(x, ratios[name] * 1.08, f"{ratios[name]:.2g}", ha="center", fontsize=8)
    axes.axhline(1, color=_COLOURS["floor"], linewidth=1)
    axes.text(len(groups) - 0.45, 1.06, "floor", ha="right", fontsize=8, color=_COLOURS["floor"])
    axes.set_yscale("log")
    highest = max(max(ratios.values()) for _, ratios in groups)
    axes.set_ylim(0.15, highest * 2)
    axes.set_xlim(-0.55, len(groups) - 0.4)
    axes.set_yticks([0.2, 0.5, 1, 2, 5, 10, 20], ["0.2", "0.5", "1", "2", "5", "10", "20"])
    axes.minorticks_off()
    axes.set_xticks(range(len(groups)), [label for label, _ in groups])
    axes.set_title("CPU to store and read, times that of no backend at all (less is better)", fontsize=10)
    axes.legend(frameon=False, ncols=4, loc="upper center", fontsize=8)
    _save(figure, path)
