/** The end of a --help text: examples as one would type them, then the exit codes. */
export function examples(...lines: readonly string[]): string {
  const shown = lines.map((line) => `  $ countersign ${line}`).join('\n');
  return `\nExamples:\n${shown}\n\n${exitCodeHelp}`;
}

const exitCodeHelp = `Exit codes:
  0 ok   1 the answer is no   2 invalid or refused   64 usage
  69 unreachable or unavailable   70 internal   77 not permitted`;
