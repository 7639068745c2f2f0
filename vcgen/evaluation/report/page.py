"""The frame of report.html, a string.Template: plain HTML and CSS that follow the reader's light or dark setting."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1c2430; --soft: #5b6675; --line: #d9dfe7; --paper: #ffffff;
  --band: #f4f6f9; --mark: #2f6fb7; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6eaf0; --soft: #9aa5b4; --line: #343d4a; --paper: #151a21; --band: #1e252f; --mark: #6ba6e8; }
}
body {
  font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper);
  max-width: 62rem; margin: 2.5rem auto; padding: 0 1.2rem;
}
h1 { font-size: 1.7rem; line-height: 1.2; margin-bottom: .3rem; }
h2 { font-size: 1.2rem; margin-top: 2.4rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
h3 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
p.lead, figcaption, dd { color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { text-align: right; padding: .4rem .7rem; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { font-weight: 600; background: var(--band); }
th:first-child, td:first-child { text-align: left; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1rem; font-size: .9rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
.row { display: flex; flex-wrap: wrap; gap: .7rem; align-items: flex-start; margin-bottom: .8rem; }
.row p { margin: 0; font-size: .85rem; font-variant-numeric: tabular-nums; }
figure { margin: 0; }
figure img { width: 9rem; display: block; image-rendering: pixelated; border: 1px solid var(--line); \
border-radius: 4px; }
figcaption { font-size: .8rem; text-align: center; }
.warning { background: #fff3d6; color: #5c4300; padding: .6rem .9rem; border-radius: 6px; }
svg { width: 100%; max-width: 40rem; }
svg rect { fill: var(--mark); }
svg text { fill: var(--soft); font-size: 13px; }
details { margin-top: 1.2rem; }
summary { cursor: pointer; font-weight: 600; }
</style>
</head>
<body>
<h1>$title</h1>
<p class="lead">$summary</p>
$table
<p class="lead">Brackets: 95 % intervals. Arrows point towards better.</p>
$missing
$paired
<h2>Definitions</h2>
$definitions
<h2>Images</h2>
<p class="lead">Best, median and worst object by mean PSNR; of each, its best, median and worst view. Error: \
mean absolute difference over
the channels, white for none, darkest from $error_scale. Depth: yellow near, violet far, white where nothing is hit
or all is equally far.</p>
$examples
<h2>PSNR per object</h2>
$histogram
<details><summary>All objects, best first</summary>$objects</details>
<details><summary>Provenance: hashes, versions, command, hardware</summary>$provenance</details>
<details><summary>A row for a paper's table, in LaTeX and Markdown</summary><pre class="scroll">$row</pre></details>
</body>
</html>
"""
