"""What the report's pages have in common: their look, and the policy that keeps them offline."""

# A page asks nobody for anything, whatever a notebook's output holds.
POLICY = "default-src 'none'; img-src 'self' file: data:; style-src 'unsafe-inline'; media-src data:"

STYLE = """
:root { color-scheme: light dark; --text: #1d2329; --quiet: #5b6670; --ground: #fafafa; --card: #fff;
  --line: #dfe3e6; --accent: #0b6e75; --bad: #a8321f; --code: #f3f5f6; }
@media (prefers-color-scheme: dark) { :root { --text: #e3e6e8; --quiet: #9aa5ad; --ground: #15191c;
  --card: #1d2226; --line: #343b41; --accent: #5cc4cb; --bad: #f08c78; --code: #171b1e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; max-width: 76rem; color: var(--text);
  background: var(--ground); font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .6rem 0; }
h2 { font-size: 1.25rem; margin: 1.6rem 0 .5rem; }
h3 { font-size: 1.05rem; } a { color: var(--accent); } img, svg { max-width: 100%; height: auto; }
table { border: 0; border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .8rem .35rem 0; text-align: left; vertical-align: top;
  border: 0; border-bottom: 1px solid var(--line); }
th { color: var(--quiet); font-weight: 600; } .scroll { overflow-x: auto; } .quiet { color: var(--quiet); }
.bad { color: var(--bad); font-weight: 600; } .good { color: var(--accent); font-weight: 600; }
.banner { border-left: 4px solid var(--bad); background: var(--card); padding: .7rem 1rem; margin: 1rem 0;
  overflow-wrap: anywhere; }
.output_stream pre { white-space: pre-wrap; overflow-wrap: anywhere; }
code, pre { font: .86rem/1.5 ui-monospace, "SF Mono", Menlo, Consolas, monospace; }
"""
