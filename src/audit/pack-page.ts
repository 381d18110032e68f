import { hash } from 'node:crypto';
import type { PackFiles } from './pack-manifest.ts';
import * as primitives from './pack-primitives.ts';
import * as reading from './pack-reading.ts';
import * as screen from './pack-screen.ts';
import * as verifier from './pack-verifier.ts';

/**
 * The page that verifies a pack in a browser, without a network: one file, whose policy lets nothing run but its own script.
 * The script is the text of the functions that `countersign audit pack verify` runs.
 * @param files of the pack to put into the page; null for a page that asks for the directory of one
 */
export function buildPackPage(files: PackFiles | null): string {
  const script = packScript();
  const policy = [
    "default-src 'none'",
    `script-src '${sourceOf(script)}'`,
    `style-src '${sourceOf(style)}'`,
    "base-uri 'none'",
    "form-action 'none'",
    "require-trusted-types-for 'script'",
  ].join('; ');
  return `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="${policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Audit evidence pack</title>
<style>${style}</style>
</head>
<body>
<h1>Audit evidence pack</h1>
<p id="verdict" role="status">not verified: this page needs JavaScript</p>
<p><label>The key of the log, from somewhere else than this pack: <input id="key" size="80" autocomplete="off" spellcheck="false"></label>
<button id="verify" type="button">Verify</button></p>
<p><label>Or choose the directory of another pack: <input id="directory" type="file" webkitdirectory multiple></label></p>
<h2>Checks</h2>
<table><thead><tr><th>Result</th><th>Check</th><th>What was found</th></tr></thead><tbody id="checks"></tbody></table>
<h2>The pack</h2>
<table><tbody id="facts"></tbody></table>
<h2>The sample, in the order in which it was drawn</h2>
<table><thead><tr><th>Entry</th><th>Record</th></tr></thead><tbody id="sample"></tbody></table>
<h2>Losses, starts and stops</h2>
<table><thead><tr><th>Entry</th><th>Record</th></tr></thead><tbody id="coverage"></tbody></table>
<h2>What this does not prove</h2>
<ul>
<li>That the population has every record of the window: <code>countersign audit pack verify --log</code> proves it from a copy of the log.</li>
<li>That what was recorded is true, and that all that happened was recorded.</li>
<li>That this page is honest, when it comes from whom you audit: make one of your own with <code>countersign audit pack page</code> and choose the directory there.</li>
</ul>
<script id="pack" type="application/json">${files === null ? '' : embed(files)}</script>
<script>${script}</script>
</body>
</html>
`;
}

/** SHA-256 of the script of the page, base64: what a page that is to be trusted names in its policy. */
export function packScriptHash(): string {
  return hash('sha256', packScript(), 'base64');
}

/** The text of all functions, and their start. */
function packScript(): string {
  const functions = [primitives, reading, verifier, screen].flatMap((module) => Object.values(module));
  return `'use strict';\n${functions.map(String).join('\n')}\nvoid startPage(document);\n`;
}

function sourceOf(text: string): string {
  return `sha256-${hash('sha256', text, 'base64')}`;
}

/** JSON in which nothing ends the element it stands in, the same for the same files in whatever order they come. */
function embed(files: PackFiles): string {
  const sorted = [...files].sort(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify(Object.fromEntries(sorted)).replaceAll('<', '\\u003c');
}

const style = `
body{font:16px/1.5 sans-serif;max-width:70em;margin:2em auto;padding:0 1em}
#verdict{font-weight:bold;border:2px solid;padding:.5em}
.good{color:#064}.bad{color:#a00}.open{color:#740}
td,th{text-align:left;vertical-align:top;padding:.2em 1em .2em 0;white-space:nowrap}
td:last-child{white-space:normal;overflow-wrap:anywhere}
#sample td+td,#coverage td+td{font-family:monospace}
`;
