import { writeSync } from 'node:fs';
import { type DestinationStream, type Logger, pino } from 'pino';

/** A structured logger: JSON lines on standard error, so that standard output stays for people. It never throws. */
export type Log = Logger;

/** Values under these names never reach a log, wherever they stand. */
const secretNames = ['privateKey', 'passphrase', 'secret', 'token', 'authorization', 'pkcs8'];

/** Opens the log of this process. */
export function openLog(level: string): Log {
  return pino(
    {
      level,
      base: null,
      timestamp: pino.stdTimeFunctions.isoTime,
      redact: { paths: secretNames.flatMap((name) => [name, `*.${name}`]), remove: true },
    },
    standardError(),
  );
}

/**
 * A disk that is full, or a reader that has gone, costs lines and nothing else: who logs is often in the middle of
 * dealing with that very failure. The number of lost lines is told with the next one that can be written.
 */
function standardError(): DestinationStream {
  let lost = 0;
  return {
    write: (line) => {
      try {
        if (lost > 0) writeWhole(`{"level":40,"lost":${lost},"msg":"log lines were lost"}\n`);
        lost = 0;
        writeWhole(line);
      } catch {
        lost += 1;
      }
    },
  };
}

function writeWhole(text: string): void {
  const bytes = Buffer.from(text);
  for (let at = 0; at < bytes.length;) at += writeSync(2, bytes, at);
}
