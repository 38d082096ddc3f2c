"""How `report.html` looks."""

from __future__ import annotations

CSS = """
:root { color-scheme: light dark; --ink: #1d2733; --quiet: #67727f; --line: #e1e5ea;
  --back: #f6f7f9; --card: #fff; --good: #1a7f4b; --bad: #c0362c; --busy: #1f6fb5 }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e9ee; --quiet: #98a2ae;
  --line: #303841; --back: #14181d; --card: #1d232a; --good: #4fc487; --bad: #f0796f;
  --busy: #6cb2ee } }
* { box-sizing: border-box }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink);
  background: var(--back); margin: 0 auto; padding: 2rem 1.5rem; max-width: 82rem }
h1 { font-size: 1.6rem; margin: 0; overflow-wrap: anywhere }
h2 { font-size: 1.1rem; margin: 2rem 0 .6rem }
header p { margin: .2rem 0 0 }
.quiet, small { color: var(--quiet) }
small { overflow-wrap: anywhere }
.cards { display: grid; gap: .8rem; margin-top: 1.4rem;
  grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)) }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  padding: .8rem 1rem; display: flex; flex-direction: column }
.card strong { font-size: 1.35rem; font-weight: 600 }
.card span { font-size: .85rem }
table { border-collapse: collapse; width: 100%; background: var(--card);
  border: 1px solid var(--line); border-radius: 8px }
th { font-size: .8rem; font-weight: 600; color: var(--quiet); text-align: left }
th, td { padding: .45rem .7rem; border-bottom: 1px solid var(--line) }
tbody tr:last-child td { border-bottom: 0 }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
.classes i { display: inline-block; width: .85em; height: .85em; border-radius: 3px;
  margin-right: .6em; vertical-align: -.08em }
.wide { min-width: 11rem; width: 28% }
.bar { display: flex; height: .8rem; border-radius: 4px; overflow: hidden;
  background: var(--line) }
.bar b { display: block }
.pic { width: 76px; padding: .3rem .3rem .3rem .6rem }
.pic img { display: block; max-width: 64px; max-height: 64px; margin: auto;
  border-radius: 4px; image-rendering: pixelated }
.id { overflow-wrap: anywhere; min-width: 12rem }
.pill { font-size: .78rem; font-weight: 600; padding: .1rem .55rem;
  border-radius: 99px; border: 1px solid currentColor; white-space: nowrap;
  vertical-align: .15em }
.done, .reused { color: var(--good) }
.failed, .unfinished, .interrupted { color: var(--bad) }
.running, .waiting { color: var(--busy) }
.problem { border-left: 4px solid var(--bad); padding: .5rem 1rem;
  background: var(--card); overflow-wrap: anywhere }
footer { margin-top: 2rem; font-size: .8rem }
"""
