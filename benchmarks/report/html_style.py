"""The report's looks: style sheets. Colours are those of Okabe and Ito, told apart with any colour vision."""

# Of a picture by itself too: its root element carries the class `chart`.
DRAWING = """
:root { color-scheme: light dark; --page: #f6f7f9; --card: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d8dee4;
  --good: #00694c; --bad: #a63d00;
  --c0: #0072b2; --c1: #b86e00; --c2: #00805d; --c3: #b0578d; --c4: #c04f00; --c5: #2f8fc4; }
@media (prefers-color-scheme: dark) {
  :root { --page: #0f1318; --card: #181e25; --ink: #e6edf3; --soft: #9aa7b4; --line: #313a44;
    --good: #45c79b; --bad: #ff9d5c;
    --c0: #4aa8e0; --c1: #e69f00; --c2: #2fc39a; --c3: #e08fbe; --c4: #f0813f; --c5: #8fd0f5; } }
.chart text { fill: var(--ink); font: 11px system-ui, sans-serif; }
.chart .tick { fill: var(--soft); font-size: 10px; }
.chart .strong { font-weight: 600; }
.grid { stroke: var(--line); stroke-width: 1; }
.line { fill: none; stroke: currentColor; stroke-width: 1.8; }
.dots { stroke-width: 3; stroke-linecap: round; }
.cdf { fill: none; stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 4 3; }
.mark { stroke: var(--ink); stroke-width: 1.5; }
.fill { fill: currentColor; } .dim { opacity: .45; }
.s0 { color: var(--c0); } .s1 { color: var(--c1); } .s2 { color: var(--c2); }
.s3 { color: var(--c3); } .s4 { color: var(--c4); } .s5 { color: var(--c5); }
"""

STYLE = (
    DRAWING
    + """
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 1400px; margin: 0 auto; padding: 16px; }
h1 { font-size: 1.5rem; line-height: 1.25; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 0 0 4px; }
p { margin: 4px 0 8px; overflow-wrap: anywhere; }
.soft { color: var(--soft); }
.verdict { display: inline-block; padding: 2px 10px; border: 2px solid; border-radius: 14px; font-weight: 600; }
.good { color: var(--good); } .bad { color: var(--bad); }
.tiles { display: grid; gap: 10px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 150px), 1fr)); }
.tile { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 10px 14px; }
.tile b { display: block; font-size: 1.35rem; line-height: 1.2; }
main { columns: 380px; column-gap: 14px; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 10px; padding: 14px;
  margin: 0 0 14px; break-inside: avoid; }
section.wide { column-span: all; margin-top: 14px; }
.chart { display: block; width: 100%; height: auto; max-width: 560px; margin: 6px auto 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: 3px 8px; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.text { text-align: left; white-space: normal; min-width: 16em; overflow-wrap: anywhere; }
th { color: var(--soft); font-weight: 600; }
details { margin-top: 8px; } summary { cursor: pointer; color: var(--soft); }
summary:focus-visible { outline: 2px solid var(--c0); outline-offset: 2px; }
ul { margin: 4px 0; padding-left: 20px; } li { overflow-wrap: anywhere; }
code { font-size: 12px; overflow-wrap: anywhere; }
"""
)
