#!/usr/bin/env python3
"""Keeps docs/reliability.md: one section a suite of .ci/long, with commit, machine, command and figures.

reliability.py record SUITE VERDICT SECONDS LOG CRATE...   replaces the section of SUITE by the figures in LOG
reliability.py mark                                        marks sections whose crates changed since as stale
"""
import datetime
import os
import platform
import re
import subprocess
import sys

PAGE = "docs/reliability.md"
SECTION = r"<!-- suite: {} commit: (\S+) crates: ([^>]*?) -->\n.*?<!-- end: {} -->\n"
STALE = "**Stale**: the code below changed after these figures were taken.\n\n"


def git(*arguments):
    return subprocess.run(["git", *arguments], capture_output=True, text=True, check=True).stdout.strip()


def machine():
    model = "unknown processor"
    with open("/proc/cpuinfo") as lines:
        for line in lines:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{os.cpu_count()} cores of {model}, {gib:.0f} GiB, Linux {platform.release().split('-')[0]}"


def section(suite, verdict, seconds, log, crates):
    commit = git("rev-parse", "--short=12", "HEAD")
    dirty = "" if not git("status", "--porcelain", "--untracked-files=no", "--", *crates) else " with local changes"
    with open(log, errors="replace") as lines:
        figures = [line.removeprefix("figure: ").rstrip() for line in lines if line.startswith("figure: ")]
    body = [
        f"<!-- suite: {suite} commit: {commit} crates: {' '.join(crates)} -->",
        f"Suite `{suite}`: **{verdict}** in {seconds} s, commit `{commit}`{dirty}, {datetime.date.today()}.",
        f"Machine: {machine()}. Command: `.ci/long {suite}`.",
        "",
    ]
    if figures:
        columns = figures[0].count("|") - 1
        head = ["| check | load | result |", "| --- | --- | --- |"]
        if columns != 3:
            head = [figures.pop(0), "|" + " --- |" * columns]
        body += [*head, *figures, ""]
    body.append(f"<!-- end: {suite} -->")
    return "\n".join(body) + "\n"


def read():
    with open(PAGE) as page:
        return page.read()


def write(text):
    with open(PAGE, "w") as page:
        page.write(text)


def record(suite, verdict, seconds, log, *crates):
    text, new = read(), section(suite, verdict, seconds, log, crates)
    pattern = re.compile(SECTION.format(suite, suite), re.S)
    write(pattern.sub(lambda _: new, text) if pattern.search(text) else text.rstrip("\n") + "\n\n" + new)


def mark():
    text = read().replace(STALE, "")

    def check(found):
        commit, crates = found.group(1), found.group(2).split()
        known = subprocess.run(["git", "cat-file", "-e", f"{commit}^{{commit}}"], capture_output=True).returncode == 0
        changed = not known or git("log", "--format=%h", f"{commit}..HEAD", "--", *crates)
        head, rest = found.group(0).split("\n", 1)
        return f"{head}\n{STALE}{rest}" if changed else found.group(0)

    write(re.sub(SECTION.format(r"\S+", r"\S+"), check, text, flags=re.S))


if __name__ == "__main__":
    action, *arguments = sys.argv[1:]
    {"record": record, "mark": mark}[action](*arguments)
