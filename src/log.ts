import { writeSync } from 'node:fs';
import { type Logger, pino } from 'pino';
import { redactLine } from './log-redaction.ts';

/** A structured logger: JSON lines on standard error, so that standard output stays for people. It never throws. */
export type Log = Logger;

/**
 * Opens the log of this process. Whatever is logged is redacted as text, when all of it has become text.
 * @param write takes whole lines; default: standard error
 */
export function openLog(level: string, write: (line: string) => void = standardError()): Log {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime, depthLimit: 12, edgeLimit: 256 },
    { write: (line: string) => write(redactLine(line)) },
  );
}

/**
 * A disk that is full, or a reader that has gone, costs lines and nothing else: who logs is often in the middle of
 * dealing with that very failure. The number of lost lines is told with the next one that can be written.
 */
function standardError(): (line: string) => void {
  let lost = 0;
  return (line) => {
    try {
      if (lost > 0) writeWhole(`{"level":40,"lost":${lost},"msg":"log lines were lost"}\n`);
      lost = 0;
      writeWhole(line);
    } catch {
      lost += 1;
    }
  };
}

function writeWhole(text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length;) at += writeSync(2, bytes, at);
}
