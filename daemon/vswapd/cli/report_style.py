"""How the page of `vswap report` looks: light or dark, as the browser wants it."""

from __future__ import annotations

__all__ = ["STYLE"]

STYLE = """
:root { --paper: #f6f7f9; --card: #fff; --ink: #1b2330; --dim: #5b6675; --grid: #e1e5ea;
  --c0: #1d5fd0; --c1: #c2570c; --c2: #0b7a5b; --c3: #a3246f; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #12161c; --card: #1a2029; --ink: #e6eaf0; --dim: #9aa6b5; --grid: #2c3541;
    --c0: #6ea8ff; --c1: #ff9f5a; --c2: #4cd3a5; --c3: #f284c1; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px 16px; }
h1 { margin: 0; font-size: 28px; overflow-wrap: anywhere; }
h2 { margin: 0; font-size: 17px; }
p { margin: 2px 0 12px; color: var(--dim); }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(190px, 1fr)); gap: 12px;
  margin: 16px 0; }
dl div, figure, section { background: var(--card); border: 1px solid var(--grid);
  border-radius: 8px; }
dl div { padding: 10px 14px; }
dt, small, footer { color: var(--dim); font-size: 13px; }
dd { margin: 0; font-size: 24px; font-variant-numeric: tabular-nums; }
small { display: block; }
figure { margin: 0 0 16px; padding: 14px 16px; }
svg { display: block; width: 100%; height: auto; }
.swatch { display: inline-block; width: 28px; height: 8px; margin-right: 6px; }
.legend { margin: 6px 0 8px; }
.legend span { display: inline-flex; align-items: center; margin-right: 18px; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: butt; }
.line-0 { stroke: var(--c0); } .line-1 { stroke: var(--c1); }
.line-2 { stroke: var(--c2); } .line-3 { stroke: var(--c3); }
.grid { stroke: var(--grid); }
.mark { stroke: var(--dim); stroke-dasharray: 1 3; }
section { margin: 0 0 16px; padding: 14px 16px; }
ol { margin: 0; padding: 0; list-style: none; max-height: 240px; overflow-y: auto; }
.axis { fill: var(--dim); font-size: 12px; }
details { overflow-x: auto; }
summary { cursor: pointer; color: var(--dim); font-size: 13px; }
table { border-collapse: collapse; margin-top: 8px; font-size: 13px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 3px 12px 3px 0; border-bottom: 1px solid var(--grid); text-align: right;
  white-space: nowrap; font-weight: normal; }
thead th { color: var(--dim); }
th:first-child { text-align: left; }
@media print { details { display: none; } }
"""
